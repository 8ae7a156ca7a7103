#!/usr/bin/env bash
# usage: bench/scale.sh BUILD SCRATCH [LAYERS]
# What factoring a Mistral-7B-shaped checkpoint of random bf16 weights costs (bench/make_shape):
# seconds and peak memory of the weight objective and of a calibrated one, and writing against
# copying the same files in turn, both until the disk has them. LAYERS (8) of the model's 32: layers
# cost alike. SCRATCH needs 1.5 GB and three times 0.44 GB for each layer; what is written there is
# removed. Prints Markdown.
# In the environment: OBJECTIVES (weight calibrated), the rows; REPEATS (1) of each; CACHE (cold), or
# warm: what of the model is in memory before; CALIB_TOKENS (4k) and HELD_BACK (1) of the calibrated
# one.
set -euo pipefail
build=${1:?usage: scale.sh BUILD SCRATCH [LAYERS]}
scratch=${2:?SCRATCH}
layers=${3:-8}
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$scratch"
trap 'rm -rf "$scratch"/{model,copy,thin}' EXIT
"$build/bin/make_shape" "$root/bench/shapes/mistral-7b.json" "$scratch/model" "$layers"

cache=${CACHE:-cold}

# One state for all: nothing waits to be written; of the model everything or nothing is in memory.
settle() {
  sync
  for file in "$scratch"/model/*; do
    if [ "$cache" = warm ]; then
      cat "$file" > /dev/null
    else
      dd if="$file" iflag=nocache count=0 status=none
    fi
  done
}

# copy NAME: appends its seconds, the flush to disk included.
copy() {
  settle
  local start
  start=$(date +%s.%N)
  cp -r "$scratch/model" "$scratch/copy"
  sync
  echo "$start $(date +%s.%N)" >> "$scratch/scale-$1.copies"
  rm -rf "$scratch/copy"
}

# factor NAME OPTION...
factor() {
  local name=$1
  shift
  settle
  "$build/bin/kvc-factorize" "$scratch/model" -o "$scratch/thin" --layout latent:1 --rank 25% --force \
    --json --quiet "$@" > "$scratch/scale-$name.json"
  # From the birth of the first weights file to the end of the command, which flushes all to disk.
  echo "$(stat -c %.3W "$scratch/thin"/model*.safetensors | sort -n | head -1) $(date +%s.%N)" \
    >> "$scratch/scale-$name.writes"
  rm -rf "$scratch/thin"
}
objectives=${OBJECTIVES:-weight calibrated}
rm -f "$scratch"/scale-*
for _ in $(seq "${REPEATS:-1}"); do
  for objective in $objectives; do
    copy "$objective"
    case $objective in
      weight) factor weight --objective weight ;;
      calibrated)
        factor calibrated --calib "$root/examples/text/alice-calibration.txt" \
          --calib-tokens "${CALIB_TOKENS:-4k}" --held-back "${HELD_BACK:-1}"
        ;;
      *) echo "OBJECTIVES: no such row: $objective" >&2; exit 2 ;;
    esac
  done
done

python3 - "$scratch" "$layers" "$cache" "$objectives" << 'PYTHON'
import json, statistics, sys

scratch, layers, cache, objectives = *sys.argv[1:4], sys.argv[4].split()


def spans(path):
    return [end - begin for begin, end in (map(float, line.split()) for line in open(path))]


def spread(values, digits):
    text = f"{statistics.median(values):.{digits}f}"
    return text if len(values) == 1 else text + f" ({min(values):.{digits}f} to {max(values):.{digits}f})"


print(f"{layers} layers, {cache} cache; medians (and the range) of the repetitions")
print("| objective | seconds | of them writing | copying | writing against copying | peak memory |")
print("|---|---|---|---|---|---|")
for name in objectives:
    run = json.load(open(f"{scratch}/scale-{name}.json"))
    copies, writes = spans(f"{scratch}/scale-{name}.copies"), spans(f"{scratch}/scale-{name}.writes")
    ratios = [write / copy for write, copy in zip(writes, copies)]
    print(
        f"| {run['objective']} | {run['seconds']:.1f} | {spread(writes, 1)} | {spread(copies, 1)} "
        f"| {spread(ratios, 2)} | {run['peak_rss_bytes'] / 2**30:.2f} GiB |"
    )
PYTHON
