#!/usr/bin/env bash
# usage: bad_input.sh BIN SOURCE WORK
# What users get for bad input: the exit code of the contract, one line that names the object, and
# nothing left behind.
set -uo pipefail
bin=$1 source=$2 work=$3
models=$source/tests/golden/models
text=$source/examples/text/alice-calibration.txt
rm -rf "$work" && mkdir -p "$work"
failures=0

# expect CODE WORD command...: exit code, "error:" line holding WORD, $work/out not there.
expect() {
  local code=$1 word=$2
  shift 2
  rm -rf "$work/out"
  "$@" > "$work/stdout" 2> "$work/stderr"
  local got=$?
  local line
  line=$(grep 'error:' "$work/stderr" | tail -n 1)
  local problem=""
  [ "$got" -eq "$code" ] || problem="expected exit code $code, got $got"
  [[ "$line" == *"$word"* ]] || problem="$problem; expected \"$word\" in the message"
  [ "$(grep -c 'error:' "$work/stderr")" -eq 1 ] || problem="$problem; expected one error line"
  [ -s "$work/stdout" ] && problem="$problem; expected nothing on stdout"
  [ -e "$work/out" ] && problem="$problem; $work/out was left behind"
  compgen -G "$work/out*" > /dev/null && problem="$problem; something of the output was left behind"
  if [ -n "$problem" ]; then
    echo "FAILED: ${*##*/}: ${problem#; } -- $(cat "$work/stderr")"
    failures=$((failures + 1))
  fi
}

# A copy of a golden model to break.
broken() { rm -rf "$work/model" && cp -r "$models/${1:-llama}" "$work/model"; }

weight=(--objective weight --rank 50% -o "$work/out")

# usage: 2
expect 2 "--rank" "$bin/kvc-factorize" "$models/llama" -o "$work/out" --rank 200% --objective weight
expect 2 "--nonsense" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --nonsense
expect 2 "divisor" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --layout latent:3
expect 2 "absorb" "$bin/kvc-factorize" "$models/gpt2" "${weight[@]}" --layout latent:1
expect 2 "--budget" "$bin/kvc-export" "$models/llama" -o "$work/out" --budget much
mkdir "$work/taken" && touch "$work/taken/file"
expect 2 "taken" "$bin/kvc-factorize" "$models/llama" -o "$work/taken" --objective weight
[ "$(ls "$work/taken")" = file ] || { echo "FAILED: an existing directory was changed"; failures=$((failures + 1)); }

# bad input: 3
expect 6 "nowhere: expected a model directory" "$bin/kvc-factorize" "$work/nowhere" "${weight[@]}"
broken; head -c 2000 "$models/llama/model.safetensors" > "$work/model/model.safetensors"
expect 3 "model.safetensors" "$bin/kvc-factorize" "$work/model" "${weight[@]}"
broken llama-bias; rm "$work/model/model-00002-of-00005.safetensors"
expect 3 "model-00002" "$bin/kvc-factorize" "$work/model" "${weight[@]}"
broken; sed -i 's/"model_type": *"llama"/"model_type": "mamba"/' "$work/model/config.json"
expect 3 "mamba" "$bin/kvc-factorize" "$work/model" "${weight[@]}"
broken; sed -i 's/"hidden_size": *[0-9]*/"hidden_size": 48/' "$work/model/config.json"
expect 3 "expected shape" "$bin/kvc-factorize" "$work/model" "${weight[@]}"
broken; echo '{"model_type": "llama"' > "$work/model/config.json"
expect 3 "config.json" "$bin/kvc-factorize" "$work/model" "${weight[@]}"
expect 3 "tokenizer" "$bin/kvc-factorize" "$models/llama" -o "$work/out" --calib "$text"
expect 2 "logit, attention, output with --layout post-rope" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --layout post-rope
expect 2 "expected absorb for gpt2, got post-rope" "$bin/kvc-factorize" "$models/gpt2" "${weight[@]}" --layout post-rope
expect 2 "expected latent:N, latent:heads, post-rope for qwen3, got rope-pairs" "$bin/kvc-factorize" "$models/qwen3" "${weight[@]}" --layout rope-pairs
expect 2 "even number" "$bin/kvc-factorize" "$models/llama" -o "$work/out" --objective weight --layout rope-pairs --rank 5
expect 2 "expected a text to tune on" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --tune local
expect 2 "expected a text to tune on" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --tune global
expect 2 "--control: expected --tune global" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --control
expect 2 "--loss: expected --tune global" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --loss ce
expect 2 "expected one of kl, ce" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --tune global --loss mse
expect 2 "thin already" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --source "$models/llama" --tune global
broken
size=$(stat -c %s "$work/model/model.safetensors")
printf '\xc0\x7f\xc0\x7f' | dd of="$work/model/model.safetensors" bs=1 seek=$((size - 4)) conv=notrunc 2> /dev/null
expect 3 "expected finite weights" "$bin/kvc-export" "$work/model" -o "$work/out" --budget 100%
rm -rf "$work/model" && cp -r "$source/examples/models/needle-llama" "$work/model"
sed -i 's/"added_tokens": *\[/&{"id":1024,"content":"<more>","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false},/' "$work/model/tokenizer.json"
# More ids than the embedding has rows are a warning; a text that needs such an id is the error.
"$bin/kvc-export" "$work/model" -o "$work/more" --budget 100% --quiet --no-verify > /dev/null 2> "$work/stderr"
grep -q "warning: .*1025 ids" "$work/stderr" || { echo "FAILED: no word about an id too many"; failures=$((failures + 1)); }
expect 3 "expected an id below 1024, got 1024" "$bin/kvc-run" "$work/more" --prompt "<more>"
echo "A text of a few words." > "$work/short.txt"
expect 3 "at least 512 tokens" "$bin/kvc-factorize" "$source/examples/models/needle-llama" -o "$work/out" --rank 50% --calib "$work/short.txt"

# I/O: 6. A limit on the size of files stands for a full disk.
limited() { (trap '' XFSZ && ulimit -f 20 && "$@"); }
for command in "kvc-factorize --objective weight --rank 50%" "kvc-export --budget 100% --no-verify"; do
  expect 6 "expected to write" limited "$bin/"$command "$source/examples/models/needle-llama" -o "$work/out" --quiet
done
expect 6 "nowhere.txt" "$bin/kvc-profile" "$source/examples/models/needle-llama" -o "$work/out" --context 256 --calib "$work/nowhere.txt"
expect 6 "/proc/" "$bin/kvc-factorize" "$models/llama" -o /proc/kvc --objective weight

# device: 7 for one that this build or command cannot use, 2 for a name that is none
expect 7 "--device" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --device cuda
expect 7 "use --device cpu" "$bin/kvc-factorize" "$models/llama" "${weight[@]}" --device emulator
expect 7 "use --device cpu" "$bin/kvc-profile" "$source/examples/models/needle-llama" -o "$work/out" --calib "$text" --device cuda
for command in kvc-factorize kvc-profile kvc-export kvc-run kvc-bench "kvc-eval ppl" "kvc-eval logits"; do
  [ -x "$bin/${command%% *}" ] || continue
  expect 2 "--device" "$bin/"$command "$models/llama" --device nonsense
done
if [ -x "$bin/kvc-run" ]; then
  bundle=$work/bundle
  "$bin/kvc-export" "$source/examples/models/needle-llama" -o "$bundle" --budget 100% --no-verify --quiet > "$work/stdout" || exit 1
  echo "1 2 3" > "$work/ids"
  walk=(--text "$text" --context 64 --decode 8 --samples 1)
  no_device() { expect 7 "got cuda; use --device cpu" "$@" --device cuda; }
  no_device "$bin/kvc-export" "$source/examples/models/needle-llama" -o "$work/out" --budget 100%
  no_device "$bin/kvc-run" "$bundle" --prompt "A word" -n 2
  no_device "$bin/kvc-bench" "$bundle" --prompt 16 --decode 2 --depths 0
  no_device "$bin/kvc-eval" ppl "$bundle" "${walk[@]}"
  no_device "$bin/kvc-eval" kld "$bundle" --against "$bundle" "${walk[@]}"
  no_device "$bin/kvc-eval" compare "$bundle" --bundle "$bundle" "${walk[@]}"
  no_device "$bin/kvc-eval" needle "$bundle" --haystack "$text" --lengths 128 --samples 1
  no_device "$bin/kvc-eval" ruler "$bundle" --haystack "$text" --lengths 128 --samples 1 --tasks single
  no_device "$bin/kvc-eval" logits "$bundle" --ids "$work/ids" -o "$work/out.npy"
  expect 2 "of --context" "$bin/kvc-eval" logits "$bundle" --ids "$work/ids" -o "$work/out.npy" --context 3
  # The emulator is a device too (emulator.sh); auto and cpu are the processor.
  for device in auto cpu; do
    "$bin/kvc-run" "$bundle" --prompt "A word" -n 2 --quiet --device $device > "$work/$device.txt" 2> "$work/stderr" ||
      { echo "FAILED: kvc-run --device $device: $(cat "$work/stderr")"; failures=$((failures + 1)); }
  done
  cmp "$work/auto.txt" "$work/cpu.txt" || failures=$((failures + 1))
fi

# budgets: 4, with the smallest possible one named
if [ -x "$bin/kvc-export" ]; then
  expect 4 "at least" "$bin/kvc-export" "$models/llama" -o "$work/out" --budget 0.1% --method uniform --no-verify
fi

rm -rf "$work"
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "all refused as they should be"
