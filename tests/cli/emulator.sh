#!/usr/bin/env bash
# usage: emulator.sh BIN SOURCE WORK bundled|SMOLLM2
# A model through the device's code on the emulator and through the processor: a full cache, thin
# keys, and a quarter of the bytes with tiers of dimensions or of bits (of the bundled model mixtures, too) give
# the same tokens, and logits within the bound of the format. SMOLLM2: the folder of that model, in its own bf16; exit code 77 (skipped) where it is
# not there. The bundled model runs in f32: after keys that are cut to a quarter and not tuned its
# best tokens lie so close together that bf16 chooses others.
set -euo pipefail
bin=$1 source=$2 work=$3 model=$4
text=$source/examples/text/alice-calibration.txt
held_back=$source/examples/text/alice-evaluation.txt
tokens=16
dtype=auto
bound=0.03125 # of the largest logit, see below
bits=0,1x8,1x4,1x2
if [ "$model" = bundled ]; then
  model=$source/examples/models/needle-llama
  dtype=f32
  bound=0.0001
  bits=0,1x8,1x2,x3,x1.5
elif [ ! -e "$model/model.safetensors" ]; then
  echo "skipped: expected SmolLM2-135M in $model, got nothing"
  exit 77
fi
rm -rf "$work" && mkdir -p "$work"

"$bin/kvc-export" "$model" -o "$work/full" --method full --dtype $dtype --quiet > /dev/null
"$bin/kvc-export" "$model" -o "$work/tiers" --budget 25% --method uniform --window 8 \
  --scorer output-error:reduce=mean,pool=1 --tiers 0,1/8,1/4,1 --basis prompt --dtype $dtype --quiet > /dev/null
"$bin/kvc-factorize" "$model" -o "$work/thin-model" --rank 25% --layout latent:1 --objective weight \
  --quiet > /dev/null
"$bin/kvc-export" "$work/thin-model" -o "$work/thin" --method full --dtype $dtype --quiet > /dev/null
"$bin/kvc-profile" "$model" -o "$work/profile" --calib "$text" --windows 2 --context 192 --horizon 32 --positions 224 --window 8 \
  --scorer output-error:reduce=mean,pool=1 --tiers $bits --quiet > /dev/null
"$bin/kvc-export" "$model" -o "$work/bits" --budget 25% --method uniform --window 8 \
  --scorer output-error:reduce=mean,pool=1 --tiers $bits --profile "$work/profile" --dtype $dtype --quiet > /dev/null
# 128 tokens of a text, as a prompt and as ids.
"$bin/kvc-eval" tokenize "$model" --text "$held_back" | cut -d ' ' -f 1-128 > "$work/ids.txt"
head -c 480 "$held_back" > "$work/prompt.txt"

for bundle in full tiers bits thin; do
  for device in cpu emulator; do
    # The device scores in floats; the processor rounds what scores and losses multiply in a bf16 model.
    exact=
    [ $device = emulator ] || exact=--exact
    "$bin/kvc-run" "$work/$bundle" --device $device $exact --prompt-file "$work/prompt.txt" -n $tokens --json \
      --quiet > "$work/run-$bundle-$device.json"
  done
  python3 - "$work" "$bundle" <<'PYTHON'
import json, sys
work, bundle = sys.argv[1:]
runs = [json.load(open(f"{work}/run-{bundle}-{device}.json")) for device in ("cpu", "emulator")]
a, b = (run["outputs"][0] for run in runs)
print(f'{bundle}: {a["prompt_tokens"]} + {len(a["token_ids"])} tokens')
if a["token_ids"] != b["token_ids"]:
    sys.exit(f'FAILED: {bundle}: expected {a["token_ids"]}, got {b["token_ids"]}')
# Rows of almost equal worth may land in neighbouring tiers.
expected, actual = (run["cache"]["allocated_bytes"] for run in runs)
if abs(actual - expected) > (0.01 * expected if bundle in ("tiers", "bits") else 0):
    sys.exit(f"FAILED: {bundle}: expected {expected} bytes, got {actual}")
PYTHON
done

for bundle in full thin; do
  for device in cpu emulator; do
    "$bin/kvc-eval" logits "$work/$bundle" --device $device --ids "$work/ids.txt" \
      -o "$work/$bundle-$device.npy" > /dev/null
  done
  # In bf16 what is multiplied is rounded (2^-9), in each product of each layer: the errors add up like
  # a random walk's.
  python3 - "$work/$bundle-cpu.npy" "$work/$bundle-emulator.npy" $bound <<'PYTHON'
import array, ast, math, sys
def read(path):
    data = open(path, "rb").read()
    size = int.from_bytes(data[8:10], "little")
    header = ast.literal_eval(data[10:10 + size].decode())
    assert header["descr"] == "<f4", header
    return array.array("f", data[10 + size:])
a, b = map(read, sys.argv[1:3])
bound = float(sys.argv[3]) * max(map(abs, a))
largest = max(map(abs, a))
worst = max(abs(x - y) if x == x and y == y else math.inf for x, y in zip(a, b))
mean = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)) / len(a))
print(f"{sys.argv[1]}: {len(a)} logits up to {largest:.3f}, largest difference {worst:.4f}, rms {mean:.5f}")
if len(a) != len(b) or worst > bound or mean > bound / 8:
    sys.exit("FAILED: logits differ by more than the format explains")
PYTHON
done
rm -rf "$work"
