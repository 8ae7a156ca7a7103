#!/usr/bin/env bash
# usage: bench/scale.sh BUILD SCRATCH [LAYERS]
# What factoring a Mistral-7B-shaped checkpoint of random bf16 weights costs (bench/make_shape):
# seconds and peak memory of the weight objective and of a calibrated one, and writing against
# copying the same files. LAYERS (8) of the model's 32: layers cost alike. SCRATCH needs 1.5 GB and
# three times 0.44 GB for each layer; what is written there is removed. Prints Markdown.
# In the environment: OBJECTIVES (weight calibrated), the rows; CALIB_TOKENS (4k) and HELD_BACK (1)
# of the calibrated one.
set -euo pipefail
build=${1:?usage: scale.sh BUILD SCRATCH [LAYERS]}
scratch=${2:?SCRATCH}
layers=${3:-8}
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$scratch"
trap 'rm -rf "$scratch"/{model,copy,thin}' EXIT
"$build/bin/make_shape" "$root/bench/shapes/mistral-7b.json" "$scratch/model" "$layers"

# The disk in one state for all: nothing waits to be written, nothing of the model is in memory.
settle() {
  sync
  for file in "$scratch"/model/*; do dd if="$file" iflag=nocache count=0 status=none; done
}

settle
start=$(date +%s.%N)
cp -r "$scratch/model" "$scratch/copy"
copy=$(python3 -c "import sys, time; print(time.time() - float(sys.argv[1]))" "$start")
rm -rf "$scratch/copy"

# factor NAME OPTION...
factor() {
  local name=$1
  shift
  settle
  "$build/bin/kvc-factorize" "$scratch/model" -o "$scratch/thin" --layout latent:1 --rank 25% --force \
    --json --quiet "$@" > "$scratch/scale-$name.json"
  # From the birth of the first weights file to the last file that stands beside them.
  stat -c %.3W "$scratch/thin"/model*.safetensors | sort -n | head -1 > "$scratch/scale-$name.times"
  stat -c %.3Y "$scratch/thin/config.json" >> "$scratch/scale-$name.times"
  rm -rf "$scratch/thin"
}
objectives=${OBJECTIVES:-weight calibrated}
for objective in $objectives; do
  case $objective in
    weight) factor weight --objective weight ;;
    calibrated)
      factor calibrated --calib "$root/examples/text/alice-calibration.txt" --calib-tokens "${CALIB_TOKENS:-4k}" \
        --held-back "${HELD_BACK:-1}"
      ;;
    *) echo "OBJECTIVES: no such row: $objective" >&2; exit 2 ;;
  esac
done

python3 - "$scratch" "$copy" "$layers" $objectives << 'PYTHON'
import json, sys

scratch, copy, layers, objectives = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:]
print(f"copying the files of {layers} layers: {copy:.1f} s")
print("| objective | seconds | of them writing | against copying | peak memory |")
print("|---|---|---|---|---|")
for name in objectives:
    run = json.load(open(f"{scratch}/scale-{name}.json"))
    begin, end = (float(line) for line in open(f"{scratch}/scale-{name}.times"))
    write = end - begin
    print(f"| {run['objective']} | {run['seconds']:.1f} | {write:.1f} | {write / copy:.2f} | {run['peak_rss_bytes'] / 2**30:.2f} GiB |")
PYTHON
