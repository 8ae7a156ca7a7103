#!/usr/bin/env bash
# usage: bench/ranks_recipe.sh BUILD MODEL [TURNS [RUNS]]
# What ranks cost in a whole recipe: factors, profile, the best composition by `kvc-export --method auto`
# and every kind of evaluation of MODEL on the bundled texts, in turns (default 1) by RUNS, a list of
# RANKSxTHREADS (default "1x2 1x1 2x1 4x1"). Prints, for each stage that takes ranks and each run, the
# median seconds of wall time and of processors, and the load before each run; fails where bytes differ.
# The efficiency is processor time of the first run / of this one: unlike wall times, other work on the
# machine hardly changes it, but it does not see ranks that wait (`idle` does: 1 - processor time /
# (wall time x processors that the run uses), on a machine without other work).
set -euo pipefail
usage="usage: ranks_recipe.sh BUILD MODEL [TURNS [RUNS]]"
build=$(realpath "${1:?$usage}") model=$(realpath "${2:?$usage}") turns=${3:-1} runs=${4:-1x2 1x1 2x1 4x1}
root=$(cd "$(dirname "$0")/.." && pwd)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/recipe.json" << J
{
  "recipe": 1,
  "inputs": {"model": "$model", "calibration": "$root/examples/text/alice-calibration.txt",
             "held-back": "$root/examples/text/alice-evaluation.txt"},
  "stages": [
    {"name": "thin", "command": "kvc-factorize", "arguments": ["\$model"],
     "options": {"rank": "25%", "layout": "latent:1", "calib": "\$calibration",
                 "calib-tokens": "2k", "window": 256, "held-back": 4}},
    {"name": "profile", "command": "kvc-profile", "arguments": ["\$model"],
     "options": {"calib": "\$calibration", "windows": 4, "context": 256, "horizon": 32}},
    {"name": "full", "command": "kvc-export", "arguments": ["\$model"],
     "options": {"budget": "100%", "method": "full", "no-verify": true}},
    {"name": "best", "command": "kvc-export", "arguments": ["\$model"],
     "options": {"budget": "25%", "method": "auto", "profile": "@profile", "candidate": "@thin",
                 "policy": ["uniform/snapkv", "streaming", "uniform/output-error:keydiff=0.3"], "text": "\$held-back",
                 "context": 256, "decode": 24, "samples": 12, "no-verify": true}},
    {"name": "kld", "command": "kvc-eval kld", "arguments": ["@best"],
     "options": {"against": "@full", "text": "\$held-back", "context": 256, "decode": 32, "samples": 8, "batch": 2}},
    {"name": "needle", "command": "kvc-eval needle", "arguments": ["@best"],
     "options": {"haystack": "\$held-back", "lengths": "512", "samples": 3, "depths": "0.2,0.8"}},
    {"name": "ruler", "command": "kvc-eval ruler", "arguments": ["@best"],
     "options": {"haystack": "\$held-back", "lengths": "512", "samples": 2, "batch": 1, "tasks": "single,tracking"}},
    {"name": "compare", "command": "kvc-eval compare", "arguments": ["@full"],
     "options": {"profile": "@profile", "policy": ["uniform/snapkv", "streaming"], "budget": "25%", "text": "\$held-back",
                 "context": 256, "decode": 16, "samples": 24, "haystack": "\$held-back", "lengths": "256", "needles": 4}}
  ]
}
J
# The launcher of a run: appends "COMMAND seconds user system" to times, of all ranks together.
cat > "$work/timed.sh" << 'S'
#!/usr/bin/env bash
times=$1 ranks=$2
shift 2
launch=()
[ "$ranks" = 1 ] || launch=(mpirun --oversubscribe --bind-to none -q -n "$ranks")
name=$(basename "$1")
[[ $2 == -* || $2 == */* ]] || name="$name $2"
TIMEFORMAT="$name;%R;%U;%S"
{ time "${launch[@]}" "$@" 2>&3; } 3>&2 2>> "$times"
S
chmod +x "$work/timed.sh"
# What a run has written, but for times.
digest() {
  find "$1" -type f \( -path '*.safetensors' -o -name '*.data' -o -name '*.onnx' -o -name 'manifest.json' -o -path '*results/*.json' -o -name 'profile.json' \) |
    sort | while read -r file; do
    echo "${file#"$1"} $(grep -avE '"[a-z_]*seconds"|"started|"ended|"peak_|"memory_bytes"|"ranks"|result_sha256|^  "sha256"|threads|"state"' "$file" | sha256sum)"
  done
}
for ((turn = 0; turn < turns; ++turn)); do
  for run in $runs; do
    echo "load before $run: $(cut -d' ' -f1 /proc/loadavg)"
    rm -rf "$work/out"
    "$build/bin/kvc" run "$work/recipe.json" -o "$work/out" --threads "${run#*x}" --launcher "$work/timed.sh $work/times-$run ${run%x*}" \
      --quiet > "$work/log" || { cat "$work/log"; exit 1; }
    digest "$work/out" > "$work/digest-$run"
    cmp "$work/digest-${runs%% *}" "$work/digest-$run" || exit 1
  done
done
python3 - "$work" "$(nproc)" $runs << 'P'
import statistics, sys
work, cores, runs = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
def read(run):
    rows = {}  # of each command: (wall, processors) of every turn
    for line in open(f"{work}/times-{run}"):
        name, wall, user, system = line.rstrip("\n").split(";")
        rows.setdefault(name, []).append((float(wall), float(user) + float(system)))
    return {name: tuple(statistics.median(r[i] for r in turns) for i in (0, 1)) for name, turns in rows.items()}
times = {run: read(run) for run in runs}
first = times[runs[0]]
print("| stage | " + " | ".join(f"{run}: wall, processors, s" for run in runs) + " | " + " | ".join(f"efficiency of {run}" for run in runs[1:]) + " |")
print("|---" * (2 * len(runs)) + "|")
total = {run: [sum(t[i] for t in times[run].values()) for i in (0, 1)] for run in runs}
for name in [*first, "all"]:
    cells = [times[run][name] if name != "all" else total[run] for run in runs]
    print(f"| {name} | " + " | ".join(f"{wall:.1f}, {processors:.1f}" for wall, processors in cells) + " | " +
          " | ".join(f"{cells[0][1] / cell[1]:.2f}" for cell in cells[1:]) + " |")
P
