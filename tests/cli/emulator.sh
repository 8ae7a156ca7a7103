#!/usr/bin/env bash
# usage: emulator.sh BIN SOURCE WORK bundled|SMOLLM2
# A model through the device's code on the emulator and through the processor: a full cache, thin
# keys, and a quarter of the bytes with tiers of dimensions or of bits (of the bundled model mixtures,
# too) write the same text, with logits within the bound of the format; emulator.py says what that
# means where tokens compete for bits in bf16. SMOLLM2: the folder of that model, in its own bf16;
# exit code 77 (skipped) where it is not there. The bundled model runs in f32: after keys that are cut
# to a quarter and not tuned its best tokens lie so close together that bf16 chooses others.
set -euo pipefail
bin=$1 source=$2 work=$3 model=$4
text=$source/examples/text/alice-calibration.txt
held_back=$source/examples/text/alice-evaluation.txt
tokens=16
dtype=auto
rounding=bf16
bits=0,1x8,1x4,1x2
if [ "$model" = bundled ]; then
  model=$source/examples/models/needle-llama
  dtype=f32
  rounding=f32
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
"$bin/kvc-profile" "$model" -o "$work/profile" --calib "$text" --windows 2 --context 192 --horizon 32 --window 8 \
  --scorer output-error:reduce=mean,pool=1 --tiers $bits --quiet > /dev/null
"$bin/kvc-export" "$model" -o "$work/bits" --budget 25% --method uniform --window 8 \
  --scorer output-error:reduce=mean,pool=1 --tiers $bits --profile "$work/profile" --dtype $dtype --quiet > /dev/null
head -c 480 "$held_back" > "$work/prompt.txt"
"$bin/kvc-eval" tokenize "$model" --text "$work/prompt.txt" > "$work/prompt.ids"

# logits OUT BUNDLE DEVICE OPTIONS...: along the processor's text, but for its last token
logits() {
  "$bin/kvc-eval" logits "$work/$2" --device "$3" --ids "$work/text.ids" -o "$work/$1.npy" "${@:4}" > /dev/null
}
for bundle in full tiers bits thin; do
  for device in cpu emulator; do
    "$bin/kvc-run" "$work/$bundle" --device $device --prompt-file "$work/prompt.txt" -n $tokens --json \
      --quiet > "$work/run-$bundle-$device.json"
  done
  prompt=$(python3 - "$work" $bundle <<'PYTHON'
import json, sys
work, bundle = sys.argv[1:]
prompt = open(f"{work}/prompt.ids").read().split()
output = json.load(open(f"{work}/run-{bundle}-cpu.json"))["outputs"][0]
assert output["prompt_tokens"] == len(prompt), (output["prompt_tokens"], len(prompt))
with open(f"{work}/text.ids", "w") as file:
    print(*prompt, *output["token_ids"][:-1], file=file)
print(len(prompt))
PYTHON
  )
  for device in cpu emulator; do
    logits $bundle-$device $bundle $device --context "$prompt"
  done
  case $bundle in tiers | bits) logits $bundle-reference full cpu ;; esac
  python3 "$source/tests/cli/emulator.py" "$work" $bundle $rounding
done
rm -rf "$work"
