#!/usr/bin/env bash
# usage: factorize_ranks.sh BIN SOURCE WORK
# kvc-factorize, and a recipe with a launcher that also chooses a composition (kvc-export --method auto), as ranks of mpirun on the bundled
# model: the bytes of one rank whatever their number and their threads, also after a rank was killed.
set -euo pipefail
bin=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work"
. "$source/tests/cli/checks.sh"
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
"$bin/kvc-factorize" --version | grep -q "MPI none" && { echo "skipped: built without MPI"; exit 77; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ranks() { local count=$1; shift; mpirun --oversubscribe -n "$count" "$@"; }
model=$source/examples/models/needle-llama text=$source/examples/text/alice-calibration.txt
factorize() { # factorize RANKS THREADS OUT options...
  local count=$1 threads=$2 out=$3
  shift 3
  ranks "$count" "$bin/kvc-factorize" "$model" -o "$work/$out" --calib "$text" --calib-tokens 2k --window 128 --threads "$threads" --quiet --force "$@" \
    > "$work/stdout" 2> "$work/stderr" || fail "$count ranks, $*: code $?: $(cat "$work/stderr")"
}
same() { diff -r "$work/$1" "$work/$2" > "$work/both" || fail "$1 and $2 differ: $(cat "$work/both")"; }

factorize 1 2 one --rank 50%
factorize 2 1 two --rank 50%
same one two
[ "$(grep -c '^layout' "$work/stdout")" -eq 1 ] || fail "every rank printed: $(cat "$work/stdout")"
tuned=(--rank 25% --layout latent:1 --spread --tune local,global --tune-tokens 2k --tune-passes 1)
factorize 1 1 tuned1 "${tuned[@]}"
for count in 3 4; do
  factorize $count 1 tuned$count "${tuned[@]}"
  same tuned1 tuned$count
done

# A rank that is killed ends all of them; another number of ranks goes on behind what is finished.
for delay in 0.6 1.2 1.8; do
  setsid mpirun --oversubscribe -n 2 "$bin/kvc-factorize" "$model" -o "$work/killed" --calib "$text" --calib-tokens 2k --window 128 --threads 1 \
    --quiet --force "${tuned[@]}" > /dev/null 2> "$work/stderr" &
  launcher=$!
  sleep "$delay"
  victim=$(pgrep -P "$launcher" | tail -n 1 || true)
  if [ -n "$victim" ]; then kill -9 "$victim" 2> /dev/null || true; fi
  wait "$launcher" || true
done
factorize 3 1 killed "${tuned[@]}"
same tuned1 killed

# Ranks' cost, without ranks.
"$bin/kvc-factorize" "$model" -o "$work/none" --ranks 8 --dry-run --json > "$work/plan.json"
has "$work/plan.json" rank_cost memory_bytes sent_bytes read_bytes
grep -q '"ranks": 8' "$work/plan.json" || fail "$(cat "$work/plan.json")"

expect 2 'expected --method auto for several ranks' mpirun --oversubscribe -n 2 "$bin/kvc-export" "$model" -o "$work/x" --method full --budget 100%

# A recipe: its launcher starts what takes ranks; nothing is made again without it. Another run of it without ranks has the same bytes.
cat > "$work/recipe.json" << J
{"recipe": 1, "launcher": ["mpirun", "--oversubscribe", "-q", "-n", "2"], "inputs": {"model": "$model", "text": "$source/examples/text/alice-evaluation.txt"},
 "stages": [
  {"name": "thin", "command": "kvc-factorize", "arguments": ["\$model"], "options": {"rank": "50%", "objective": "weight"}},
  {"name": "full", "command": "kvc-export", "arguments": ["\$model"], "options": {"budget": "100%", "method": "full"}},
  {"name": "best", "command": "kvc-export", "arguments": ["\$model"],
   "options": {"budget": "50%", "method": "auto", "candidate": "@thin", "policy": ["streaming", "uniform/snapkv"], "text": "\$text",
               "context": 256, "decode": 16, "samples": 5}},
  {"name": "kld", "command": "kvc-eval kld", "arguments": ["@best"],
   "options": {"against": "@full", "text": "\$text", "context": 256, "decode": 16, "samples": 3, "batch": 1}}]}
J
expect 0 'mpirun .*kvc-export .*--method auto' "$bin/kvc" run "$work/recipe.json" -o "$work/out" --dry-run
! grep -q 'mpirun .*--method full' "$work/both" || fail "an export without ranks was launched: $(cat "$work/both")"
"$bin/kvc" run "$work/recipe.json" -o "$work/out" --threads 1 --quiet > /dev/null
[ "$("$bin/kvc" run "$work/recipe.json" -o "$work/out" --launcher none --quiet --json | grep -c '"state": "kept"')" -eq 4 ] || fail "not every stage was kept"
"$bin/kvc" run "$work/recipe.json" -o "$work/alone" --threads 2 --launcher none --quiet > /dev/null
. "$source/tests/cli/command_table.sh"
for stage in thin full best results/kld.json; do
  [ "$(digest "$work/out/$stage")" = "$(digest "$work/alone/$stage")" ] || fail "$stage: other bytes as two ranks: $(diff -r "$work/out/$stage" "$work/alone/$stage")"
done
expect 2 'launcher: expected a program, got no-mpirun' "$bin/kvc" run "$work/recipe.json" -o "$work/out" --launcher "no-mpirun -n 2"
cd / && rm -rf "$work"
echo "kvc-factorize has the same bytes for any number of ranks"
