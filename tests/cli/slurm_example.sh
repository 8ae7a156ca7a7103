#!/usr/bin/env bash
# usage: slurm_example.sh BIN SOURCE WORK
# The job in examples/slurm, run as Slurm would start it, on the bundled model: srun is mpirun with two ranks. What it asks of a machine
# covers what the cost model predicts for the model that it is for.
set -euo pipefail
bin=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work/bin"
. "$source/tests/cli/checks.sh"
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
job=$source/examples/slurm/prepare-70b.sh
export PATH=$work/bin:$bin:$PATH OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
asked() { sed -n "s/^#SBATCH --$1=//p" "$job"; }
[ "$(asked nodes)" -gt 1 ] && [ "$(asked ntasks-per-node)" -eq 1 ] && [ -n "$(asked time)" ] || fail "the job's size"

# The machine's memory: the prediction, and 4 GB for the program and the pages of the checkpoint in use.
table=$("$source/scripts/rank_costs.py" "$bin" --models 70B --ranks "$(asked nodes)" --threads "$(asked cpus-per-task)" \
  --calib-tokens 1M --window 512 --held-back 16 --rank 50% --layout latent:1 | tail -n 1)
memory=$(echo "$table" | cut -d '|' -f 4) hours=$(echo "$table" | cut -d '|' -f 8)
memory_asked=$(asked mem) time_asked=$(asked time)
python3 - "$memory" "${memory_asked%G}" "$hours" "$time_asked" << 'PYTHON' || fail "the job asks for too little, or far too much: $table"
import sys
memory, asked, hours, time = float(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4].split(":")
assert memory + 4 <= asked * 1.0737 <= 4 * memory + 32, (memory, asked)
assert hours <= float(time[0]), (hours, time)  # the other stages come on top
PYTHON

cat > "$work/bin/srun" << SRUN
#!/bin/bash
echo "\$@" >> "$work/launched"
shift
exec mpirun --oversubscribe -n 2 "\$@"
SRUN
chmod +x "$work/bin/srun"
mkdir "$work/checkout" && cp -r "$source/examples" "$work/checkout" && chmod -R u+w "$work/checkout"
cd "$work/checkout"
sed -i 's/"calib-tokens": "1M"/"calib-tokens": "4k"/; s/"windows": 64/"windows": 4/; s/"samples": 16/"samples": 2/; s/"decode": 128/"decode": 32/; s/"10%"/"500%"/' \
  examples/slurm/recipe.json
export SLURM_CPUS_PER_TASK=1
submit() { bash examples/slurm/prepare-70b.sh examples/models/needle-llama examples/text/alice-calibration.txt examples/text/alice-evaluation.txt "$1"; }
submit out > "$work/stdout" 2> "$work/stderr" < /dev/null || fail "the job: $(cat "$work/stdout" "$work/stderr")"
[ "$(grep -c '^thin \|^profile \|^full \|^compressed \|^kld ' "$work/stdout")" -eq 10 ] || fail "stages: $(cat "$work/stdout")"
# Three of five stages take ranks.
[ "$(grep -c 'kvc-factorize\|kvc-profile\|kvc-eval' "$work/launched")" -eq 3 ] && [ "$(wc -l < "$work/launched")" -eq 3 ] ||
  fail "launched: $(cat "$work/launched")"
# Without ranks: the same bytes in every folder that was made.
kvc run examples/slurm/recipe.json -o alone --set model=examples/models/needle-llama --set calibration=examples/text/alice-calibration.txt \
  --set held-back=examples/text/alice-evaluation.txt --launcher none --threads 1 --quiet > /dev/null
for stage in thin profile compressed; do
  diff -r "out/$stage" "alone/$stage" > "$work/both" || fail "$stage differs: $(cat "$work/both")"
done
cd / && rm -rf "$work"
echo "the Slurm job's commands run"
