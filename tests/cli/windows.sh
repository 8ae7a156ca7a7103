#!/usr/bin/env bash
# usage: windows.sh BIN SOURCE WORK
# A model with the shape of Mistral-7B v0.1 (32 query heads over 8, one sliding window for all layers)
# at a small width, with random weights, through the whole pipeline on texts of several windows.
set -euo pipefail
bin=$1 source=$2 work=$3
. "$source/tests/cli/checks.sh"
model=$source/examples/models/needle-llama
text=$source/examples/text/alice-calibration.txt
held_back=$source/examples/text/alice-evaluation.txt
rm -rf "$work" && mkdir -p "$work"

cat > "$work/config.json" <<JSON
{"architectures": ["MistralForCausalLM"], "model_type": "mistral", "bos_token_id": 0, "eos_token_id": 0,
 "hidden_act": "silu", "hidden_size": 128, "intermediate_size": 448, "max_position_embeddings": 1024,
 "num_attention_heads": 32, "num_hidden_layers": 4, "num_key_value_heads": 8, "head_dim": 8,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 64, "tie_word_embeddings": false,
 "torch_dtype": "bfloat16", "vocab_size": 1024}
JSON
"$bin/kvc-train" "$work/config.json" -o "$work/model" --tokenizer "$model" --text "$text" --steps 2 \
  --batch 1 --length 128 --quiet > /dev/null
"$bin/kvc-factorize" "$work/model" -o "$work/thin" --rank 50% --layout latent:1 --calib "$text" \
  --calib-tokens 1k --window 256 --quiet > /dev/null
"$bin/kvc-profile" "$work/model" -o "$work/profile" --calib "$text" --scorer keydiff --windows 2 --context 256 \
  --quiet > /dev/null
"$bin/kvc-export" "$work/model" -o "$work/full" --budget 100% --method full --quiet > /dev/null
"$bin/kvc-export" "$work/model" -o "$work/lukv" --budget 75% --method lukv --profile "$work/profile" --scorer keydiff \
  --window 8 --quiet > /dev/null
"$bin/kvc-export" "$work/thin" -o "$work/latent" --budget 75% --method uniform --scorer keydiff \
  --window 8 --quiet > /dev/null

# 2 L G D elements of two bytes for each of the 64 tokens in the window, however long the text is.
bytes=$((2 * 4 * 8 * 8 * 2 * 64))
prompt=$(head -c 1500 "$held_back")
for bundle in full lukv latent; do
  "$bin/kvc-export" --verify "$work/$bundle" > /dev/null
  "$bin/kvc-run" "$work/$bundle" --prompt "$prompt" -n 80 --json > "$work/$bundle.json"
  grep -q "\"full_bytes\": $bytes" "$work/$bundle.json" || fail "$bundle: expected $bytes full bytes: $(cat "$work/$bundle.json")"
  "$bin/kvc-eval" ppl "$work/$bundle" --text "$held_back" --context 300 --decode 70 --samples 2 --json > "$work/ppl.json"
  has "$work/ppl.json" perplexity cache
done
grep -q "\"allocated_bytes\": $bytes" "$work/full.json" || fail "full: expected $bytes allocated bytes: $(cat "$work/full.json")"
# Compressed prompts against the full cache.
"$bin/kvc-eval" kld "$work/lukv" --against "$work/full" --text "$held_back" --context 300 --decode 70 --samples 2 \
  --json > "$work/kld.json"
has "$work/kld.json" kld_mean same_top

# What transformers refuses.
sed 's/"model_type": "mistral"/"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"]/' \
  "$work/config.json" > "$work/config2.json"
expect 3 "use_sliding_window" "$bin/kvc-train" "$work/config2.json" -o "$work/refused" --tokenizer "$model" --text "$text" --steps 1
rm -rf "$work"
echo "windows run"
