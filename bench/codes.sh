#!/usr/bin/env bash
# usage: bench/codes.sh BUILD MODEL CALIBRATION OUT TEXT...
# This program's tokens in few bits beside other people's codes and evictions, at the same bytes: one set of windows and
# needles, one measure. MODEL is a Hugging Face directory with rotated keys (Llama, Qwen, ...), CALIBRATION a text that is
# fitted to, TEXT... those that are judged on (the last one hides the needles). OUT gets results/ours.json, results/codes.json
# and report.html, whose first chart is KLD over bytes. What there is already is not measured again.
#
# KVC_SAMPLES windows of 768 + 128 tokens (6), KVC_NEEDLES needles of KVC_LENGTH (1k) tokens for each depth (3), KVC_BUDGETS
# (50%,25%,12.5%,6.25%,3.125%), KVC_CODES=0: without the codes in Python, which need transformers (tests/venv.sh BUILD torch).
set -euo pipefail
usage="usage: codes.sh BUILD MODEL CALIBRATION OUT TEXT..."
build=${1:?$usage}
model=${2:?$usage}
calibration=${3:?$usage}
out=${4:?$usage}
shift 4
[ $# -gt 0 ] || { echo "$usage" >&2; exit 2; }
texts=("$@")
bin=$build/bin
here=$(cd "$(dirname "$0")" && pwd)
budgets=${KVC_BUDGETS:-50%,25%,12.5%,6.25%,3.125%}
score=output-error:prompt=1024
mkdir -p "$out/results"

[ -d "$out/full" ] || "$bin/kvc-export" "$model" -o "$out/full" --budget 100% --method full --no-verify
[ -d "$out/profile" ] || "$bin/kvc-profile" "$model" -o "$out/profile" --calib "$calibration" \
  --windows 6 --context 768 --horizon 128 --scorer "$score" --scorer snapkv
protocol=(--text "${texts[@]}" --context 768 --decode 128 --samples "${KVC_SAMPLES:-6}" --decode-policy append
  --haystack "${texts[-1]}" --needles "${KVC_NEEDLES:-3}" --lengths "${KVC_LENGTH:-1k}")
ours=("lukv-mixed/$score" "lukv/$score" "uniform/$score" uniform/snapkv ada/snapkv pyramid/snapkv lukv/snapkv
  uniform/expected-attention ada/expected-attention uniform/keydiff streaming)
policies=()
for policy in "${ours[@]}"; do policies+=(--policy "$policy"); done
if [ ! -f "$out/results/ours.json" ]; then
  "$bin/kvc-eval" compare "$out/full" --profile "$out/profile" "${policies[@]}" --budget "$budgets" "${protocol[@]}" \
    --save-prompts "$out/prompts.json" -o "$out/results/ours.json"
fi
if [ "${KVC_CODES:-1}" != 0 ] && [ ! -f "$out/results/codes.json" ]; then
  python=${KVC_PYTHON:-$build/venv-torch/bin/python}
  # A thread of its own for each product only makes these small ones wait.
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} "$python" "$here/codes.py" "$model" "$out/prompts.json" "$calibration" \
    "$out/results/codes.json.part"
  mv "$out/results/codes.json.part" "$out/results/codes.json"
fi
"$bin/kvc" report "$out"
