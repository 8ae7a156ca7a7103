#!/usr/bin/env bash
# usage: slurm.sh BIN SOURCE WORK [MODEL]
# The commands as ranks of a real Slurm of four nodes (tests/slurm/cluster.sh), on MODEL (default: the
# bundled one): the bytes of one process, one message where a rank fails, a rank killed and the run
# taken up with another number of ranks, and what srun can get wrong.
set -uo pipefail
bin=$1 source=$2 work=$3
model=${4:-$source/examples/models/needle-llama}
case "$("$bin/kvc" --version)" in *"MPI none"*) echo "skipped: built without MPI"; exit 77 ;; esac
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
. "$source/tests/cli/command_table.sh"
. "$source/tests/slurm/cluster.sh"
trap 'stop_cluster' EXIT
start_cluster "$work/cluster"
started=$?
[ $started -ne 77 ] || exit 77
[ $started -eq 0 ] || { echo "FAILED: no Slurm"; cat "$work"/cluster/*.log "$work"/cluster/*.out; exit 1; }

failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
# Without -K, ranks wait for minutes for one that was killed before it had begun.
launch() { timeout 600 srun -K --mpi=pmix --overcommit "$@"; }
# Messages of ours on stderr; Slurm's own lines are not.
messages() { grep -c "^kvc-[a-z]*: error: " "$1"; }

head -c 60000 "$source/examples/text/alice-calibration.txt" > t.txt
profile=("$bin/kvc-profile" "$model" --calib t.txt --context 128 --horizon 16 --windows 6 --importance needle
  --needle-tests 6 --threads 1 --quiet)
"${profile[@]}" -o want > /dev/null || exit 1
want=$(digest want)

for ranks in 1 2 4; do
  rm -rf out
  launch -N $ranks -n $ranks "${profile[@]}" -o out > stdout 2> stderr || fail "$ranks nodes: $(cat stderr)"
  [ "$(digest out)" = "$want" ] || fail "$ranks nodes: other bytes"
  [ "$(grep -c "Head importance" stdout)" = 1 ] || fail "$ranks nodes: expected one result, got $(cat stdout)"
done

if [ -x "$bin/kvc-eval" ]; then
  "$bin/kvc-export" "$model" -o half --method uniform --budget 50% --no-verify --quiet > /dev/null || fail "no bundle"
  ppl=("$bin/kvc-eval" ppl half --text t.txt --context 128 --decode 16 --samples 6 --batch 1 --threads 1 --json --quiet)
  "${ppl[@]}" > alone.json
  launch -N 4 -n 4 "${ppl[@]}" > ranks.json 2> stderr || fail "ppl: $(cat stderr)"
  [ "$(timeless ranks.json)" = "$(timeless alone.json)" ] || fail "ppl: another result on four nodes"
fi

# A rank that cannot go on: here by a broken input on one of them.
cat > broken.sh << 'S'
#!/bin/sh
[ "$SLURM_PROCID" = 1 ] && cd elsewhere
exec "$@"
S
chmod +x broken.sh
mkdir -p elsewhere && cp t.txt elsewhere/ && head -c 50000 t.txt > elsewhere/t.txt
rm -rf out
launch -N 2 -n 2 ./broken.sh "${profile[@]}" -o "$work/out" > stdout 2> stderr
[ $? -eq 2 ] || fail "other text on one rank: expected exit 2, got another: $(cat stderr)"
[ "$(messages stderr)" = 1 ] || fail "other text on one rank: expected one message: $(cat stderr)"
grep -q "rank 1 on .*: calibration" stderr || fail "other text on one rank: $(cat stderr)"

# A rank killed at several moments; the rest goes on with another number of ranks.
for moment in 0.5 1 1.5 2 3; do
  rm -rf out out.partial
  launch -N 3 -n 3 bash -c \
    '[ "$SLURM_PROCID" != 2 ] || { (sleep '$moment'; kill -KILL $$) > /dev/null 2>&1 & }; exec "$@"' run \
    "${profile[@]}" -o out > stdout 2> stderr
  code=$?
  if [ $code -ne 0 ]; then
    grep -q "task 2: \(Killed\|Exited\)" stderr || fail "killed after $moment s: expected srun to name the task: $(cat stderr)"
  fi
  [ "$(messages stderr)" = 0 ] || fail "killed after $moment s: another rank speaks: $(cat stderr)"
  [ ! -e out ] || [ "$(digest out)" = "$want" ] || fail "killed after $moment s: half of an output"
  [ -e out ] || launch -N 2 -n 2 "${profile[@]}" -o out > stdout 2> stderr || fail "again: $(cat stderr)"
  [ "$(digest out)" = "$want" ] || fail "killed after $moment s: other bytes"
  [ ! -e out.partial ] || fail "killed after $moment s: left out.partial"
done

# srun without MPI would start processes that know nothing of each other.
rm -rf out
srun --mpi=none -N 2 -n 2 "${profile[@]}" -o out > stdout 2> stderr
[ $? -eq 2 ] || fail "no --mpi: expected exit 2"
[ "$(messages stderr)" = 1 ] || fail "no --mpi: expected one message: $(cat stderr)"
[ ! -e out ] && [ ! -e out.partial ] || fail "no --mpi: wrote something"

cd / && stop_cluster && rm -rf "$work"
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "Slurm: the same bytes on 1, 2 and 4 nodes"
