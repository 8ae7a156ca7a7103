#!/usr/bin/env bash
# usage: plan.sh BIN SOURCE WORK
# kvc plan: from config.json alone it says what kvc-export plans and what a run allocates.
set -euo pipefail
bin=$1 source=$2 work=$3
model=$source/examples/models/needle-llama
rm -rf "$work" && mkdir -p "$work/alone"
. "$source/tests/cli/checks.sh"

allocated() { grep -m1 -o '"allocated_bytes": [0-9]*' "$1"; }

cp "$model/config.json" "$work/alone"
"$bin/kvc" plan "$work/alone" --budget 25% --batch 8 --memory 64MiB --bandwidth 20GB/s --json > "$work/plan.json"
has "$work/plan.json" kvc command seconds model context batch weight_bytes budgets bytes_per_token cache full_bytes allocated_bytes \
  peak_bytes batch_allocated_bytes peak_prefill_bytes sequences decode_tokens_per_second
"$bin/kvc-export" "$model" -o "$work/none" --budget 25% --dry-run --json > "$work/export.json"
[ "$(allocated "$work/plan.json")" = "$(allocated "$work/export.json")" ] || fail "kvc plan and kvc-export --dry-run differ"

# A prompt of 300 tokens through the bundle allocates what was planned for it.
"$bin/kvc-export" "$model" -o "$work/quarter" --budget 25% --no-verify --quiet > /dev/null
head -c 1200 "$source/examples/text/alice-evaluation.txt" > "$work/prompt.txt"
"$bin/kvc-run" "$work/quarter" --prompt-file "$work/prompt.txt" -n 1 --quiet --json > "$work/run.json"
tokens=$(grep -o '"prompt_tokens": [0-9]*' "$work/run.json" | grep -o '[0-9]*')
"$bin/kvc" plan "$work/alone" --budget 25% --context "$tokens" --json > "$work/plan.json"
[ "$(allocated "$work/plan.json")" = "$(allocated "$work/run.json")" ] || fail "kvc plan and kvc-run differ at $tokens tokens"

expect 0 "25% (exported)" "$bin/kvc" plan "$work/quarter"
expect 0 "fit into 1.0 GiB" "$bin/kvc" plan "$work/alone" --memory 1GiB
expect 0 "raise --budget" "$bin/kvc" plan "$work/alone" --budget 0.1%
expect 2 "1024 tokens" "$bin/kvc" plan "$work/alone" --context 128k
expect 2 "bandwidth" "$bin/kvc" plan "$work/alone" --bandwidth fast
expect 2 "profile" "$bin/kvc" plan "$work/alone" --policy lukv
expect 2 "settled" "$bin/kvc" plan "$work/quarter" --dtype f16
expect 6 "checkpoint or a bundle" "$bin/kvc" plan "$work/nowhere"
