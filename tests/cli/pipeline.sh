#!/usr/bin/env bash
# usage: pipeline.sh BIN SOURCE WORK
# The commands in a row on the bundled model, small: what one writes the next reads, and the results
# hold the keys that scripts build on.
set -euo pipefail
bin=$1 source=$2 work=$3
model=$source/examples/models/needle-llama
text=$source/examples/text/alice-calibration.txt
held_back=$source/examples/text/alice-evaluation.txt
rm -rf "$work" && mkdir -p "$work"

has() {  # has FILE KEY...
  local file=$1 key
  shift
  for key in "$@"; do
    grep -q "\"$key\"" "$file" || { echo "FAILED: $file: expected the key $key"; exit 1; }
  done
}
common=(kvc command seconds peak_rss_bytes)

"$bin/kvc-factorize" "$model" -o "$work/thin" --rank 25% --layout latent:1 --calib "$text" \
  --calib-tokens 2k --window 256 --json > "$work/factorize.json"
has "$work/factorize.json" "${common[@]}" layout objective key_bytes_share layers rank logit_error kld_before_tuning
"$bin/kvc-profile" "$work/thin" -o "$work/profile" --calib "$text" --scorer snapkv --scorer keydiff \
  --windows 2 --context 256 --json > "$work/profile.json"
has "$work/profile.json" "${common[@]}"
"$bin/kvc-export" "$model" -o "$work/full" --budget 100% --method full --json > "$work/full.json"
has "$work/full.json" "${common[@]}" budget_bytes_per_token_share heads solver objective bound gap verified_max_abs_error
"$bin/kvc-export" "$work/thin" -o "$work/bundle" --budget 50% --method lukv --profile "$work/profile" \
  --json > "$work/bundle.json"
"$bin/kvc-export" --verify "$work/bundle" > /dev/null
"$bin/kvc-run" "$work/bundle" --prompt "Alice was" -n 8 --json > "$work/run.json"
has "$work/run.json" "${common[@]}" outputs prompt_tokens token_ids text prefill_tokens_per_second \
  decode_tokens_per_second cache full_bytes logical_bytes allocated_bytes peak_bytes
"$bin/kvc-eval" ppl "$work/bundle" --text "$held_back" --context 256 --decode 32 --samples 2 --json > "$work/ppl.json"
has "$work/ppl.json" "${common[@]}" perplexity nll stderr tokens cache
"$bin/kvc-eval" kld "$work/bundle" --against "$work/full" --text "$held_back" --context 256 --decode 32 \
  --samples 2 --json > "$work/kld-compressed.json"
has "$work/kld-compressed.json" "${common[@]}" kld_mean kld_median kld_p999 same_top perplexity perplexity_against tokens
compare=("$bin/kvc-eval" compare "$work/full" --bundle "$work/bundle" --policy uniform/output-error
  --policy ada/snapkv --budget 50%,25% --text "$held_back" --haystack "$held_back" --context 256
  --decode 32 --samples 3 --lengths 256 --depths 0.5 --needles 2)
"${compare[@]}" -o "$work/compare.json" --json > "$work/compare-stdout.json"
has "$work/compare.json" lines name budget kld_mean kld_p999 same_top perplexity prompt_share cache needle_accuracy
has "$work/compare-stdout.json" "${common[@]}" lines
[ "$(grep -c '"kld_mean"' "$work/compare.json")" = 6 ] && [ ! -e "$work/compare.json.partial" ] ||
  { echo "FAILED: compare: expected six lines and no progress"; exit 1; }
"${compare[@]}" --dry-run --save-prompts "$work/prompts.json" > /dev/null
has "$work/prompts.json" samples needles context decode question lead answer
"${compare[@]}" | grep -q "uniform/output-error" || { echo "FAILED: compare: no table"; exit 1; }
"$bin/kvc-export" "$model" -o "$work/best" --budget 25% --method auto --candidate "$work/thin,$work/profile" \
  --text "$held_back" --haystack "$held_back" --context 256 --decode 16 \
  --samples 2 --needles 1 --json > "$work/best.json"
has "$work/best.json" "${common[@]}" chosen tried screened kld_mean needle_accuracy verified_max_abs_error
[ "$(grep -c '"kld_mean"' "$work/best.json")" = 16 ] && [ ! -e "$work/best.auto" ] ||
  { echo "FAILED: --method auto: expected the full cache, 15 policies and no scratch folder"; exit 1; }
"$bin/kvc-export" --verify "$work/best" > /dev/null
"$bin/kvc-eval" needle "$work/full" --haystack "$held_back" --lengths 256 --depths 0.5 --samples 2 --json > "$work/needle-full.json"
has "$work/needle-full.json" "${common[@]}" accuracy cells length depth samples
ids=$("$bin/kvc-eval" tokenize "$model" --text "$held_back" | cut -d ' ' -f 1-8)
printf '%s\n%s\n' "$ids" "1 2 3" > "$work/ids.txt"
"$bin/kvc-eval" logits "$work/full" --ids "$work/ids.txt" -o "$work/out.npy" > /dev/null
[ -s "$work/out.npy" ] && [ -s "$work/out.1.npy" ] || { echo "FAILED: no logits"; exit 1; }
# Through the bundle's cache: a prompt of 2 ids, the others decoded.
"$bin/kvc-eval" logits "$work/bundle" --ids "$work/ids.txt" --context 2 -o "$work/own.npy" > /dev/null
[ "$(wc -c < "$work/own.npy")" = "$(wc -c < "$work/out.npy")" ] || { echo "FAILED: other logits"; exit 1; }
"$bin/kvc" report "$work" > "$work/report.txt"
grep -q "KL divergence" "$work/report.txt" || { echo "FAILED: no report"; exit 1; }

# The same inputs give the same bytes, whatever the number of threads.
"$bin/kvc-factorize" "$model" -o "$work/thin1" --rank 25% --layout latent:1 --calib "$text" \
  --calib-tokens 2k --window 256 --threads 1 --quiet > /dev/null
cmp "$work/thin/model.safetensors" "$work/thin1/model.safetensors"
"$bin/kvc-run" "$work/bundle" --prompt "Alice was" -n 8 --threads 1 --json > "$work/run1.json"
[ "$(grep '"text"' "$work/run.json")" = "$(grep '"text"' "$work/run1.json")" ]

# A changed bundle is refused with exit code 5.
printf 'x' >> "$work/bundle/model.onnx"
code=0
"$bin/kvc-run" "$work/bundle" --prompt "Alice" 2> "$work/stderr" || code=$?
[ "$code" -eq 5 ] && grep -q "model.onnx" "$work/stderr" || { echo "FAILED: code $code: $(cat "$work/stderr")"; exit 1; }
rm -rf "$work"
echo "the pipeline runs"
