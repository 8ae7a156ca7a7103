#!/usr/bin/env bash
# usage: bench/factorize_table.sh BUILD TEXT_DIR OUT [RANK]...
# The table "Factored keys" of docs/results.md on SmolLM2-135M (make smollm2): uniform and spread ranks,
# with and without tuning, latent:1 at the given ranks (default 25 %). TEXT_DIR holds wikitext2-valid.txt
# and chesterton-brown.txt. One JSON file for each row lands in OUT; a row that is there is not measured
# again. TUNE_TOKENS and TUNE_PASSES in the environment shorten the tuning. Prints Markdown.
set -euo pipefail
build=${1:?usage: factorize_table.sh BUILD TEXT_DIR OUT [RANK]...}
texts=${2:?TEXT_DIR}
out=${3:?OUT}
shift 3
ranks=${*:-25}
tokens=${TUNE_TOKENS:-64k}
passes=${TUNE_PASSES:-4}
mkdir -p "$out"

. "$(dirname "$0")/table_cells.sh"

# row NAME RANK OPTION...
row() {
  local name=$1 rank=$2
  shift 2
  cell "$name-$rank" "$build/bin/kvc-factorize" "$build/models/smollm2" -o "$out/thin" --force --rank "$rank%" \
    --layout latent:1 --calib "$texts/wikitext2-valid.txt" --calib "$texts/chesterton-brown.txt" --held-back 12 "$@"
}

tuning=(--tune local --tune-tokens "$tokens" --tune-passes "$passes")
for rank in $ranks; do
  row uniform "$rank"
  row spread "$rank" --spread
  row uniform-local "$rank" "${tuning[@]}"
  row spread-local "$rank" --spread "${tuning[@]}"
done
rm -rf "$out/thin"

keys_header "ranks, tuning"
for rank in $ranks; do
  for name in uniform spread uniform-local spread-local; do
    keys_row "$name-$rank" "$rank" "$name"
  done
done
