#!/usr/bin/env bash
# usage: bundled_needle.sh BIN SOURCE WORK
# The bundled model answers needle questions among three distractors (chance: 25 %) through the real
# pipeline: from the whole cache, and from thin keys and a quarter of the cache's bytes. Measured: 100 %
# of both; the limits leave room for another CPU's rounding, not for a pipeline that loses facts.
set -euo pipefail
bin=$1 source=$2 work=$3
model=$source/examples/models/needle-llama
text=$source/examples/text/alice-calibration.txt
held_back=$source/examples/text/alice-evaluation.txt
rm -rf "$work" && mkdir -p "$work"

accuracy() {  # accuracy BUNDLE LEAST: at least that share of the questions is answered
  local found
  found=$("$bin/kvc-eval" needle "$work/$1" --haystack "$held_back" --lengths 256,512,1000 \
    --depths 0.1,0.5,0.9 --distractors 3 --samples 3 --quiet --json | grep -m 1 '"accuracy"' | tr -dc '0-9.')
  awk -v found="$found" -v least="$2" 'BEGIN { exit !(found >= least) }' ||
    { echo "FAILED: $1: expected an accuracy of at least $2, got $found"; exit 1; }
}

"$bin/kvc-export" "$model" -o "$work/full" --budget 100% --method full --quiet > /dev/null
accuracy full 0.95
"$bin/kvc-factorize" "$model" -o "$work/thin" --rank 25% --layout latent:1 --calib "$text" \
  --calib-tokens 8k --quiet > /dev/null
"$bin/kvc-profile" "$work/thin" -o "$work/profile" --calib "$text" --scorer output-error:keydiff=0.3 --windows 4 \
  --context 768 --quiet > /dev/null
"$bin/kvc-export" "$work/thin" -o "$work/compressed" --budget 25% --method lukv \
  --scorer output-error:keydiff=0.3 --profile "$work/profile" --quiet > /dev/null
accuracy compressed 0.85
rm -rf "$work"
echo "needles are found"
