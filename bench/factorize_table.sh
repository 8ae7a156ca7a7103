#!/usr/bin/env bash
# usage: bench/factorize_table.sh BUILD TEXT_DIR OUT [RANK]...
# The table "Factored keys" of docs/results.md on SmolLM2-135M (make smollm2): uniform and spread ranks,
# with and without tuning, latent:1 at the given ranks (default 25 %). TEXT_DIR holds wikitext2-valid.txt
# and chesterton-brown.txt. One JSON file for each row lands in OUT; a row that is there is not measured
# again. In the environment: TUNE_TOKENS and TUNE_PASSES shorten the tuning layer by layer, GLOBAL_TOKENS
# the one of the whole model behind it; ROWS names the rows to measure (NAME-global goes on
# with the checkpoint of the row NAME, which stays in OUT). Prints Markdown.
set -euo pipefail
build=${1:?usage: factorize_table.sh BUILD TEXT_DIR OUT [RANK]...}
texts=${2:?TEXT_DIR}
out=${3:?OUT}
shift 3
ranks=${*:-25}
tokens=${TUNE_TOKENS:-64k}
passes=${TUNE_PASSES:-4}
global_tokens=${GLOBAL_TOKENS:-64k}
rows=${ROWS:-uniform spread uniform-local spread-local uniform-global spread-global uniform-local-global spread-local-global}
model=$build/models/smollm2
mkdir -p "$out"

. "$(dirname "$0")/table_cells.sh"

text=(--calib "$texts/wikitext2-valid.txt" --calib "$texts/chesterton-brown.txt" --held-back 12)

# thin NAME RANK OPTION...: from the closed form; the checkpoint stays, tuning may go on with it.
thin() {
  local name=$1-$2 rank=$2
  shift 2
  cell "$name" "$build/bin/kvc-factorize" "$model" -o "$out/thin-$name" --force --rank "$rank%" --layout latent:1 \
    "${text[@]}" "$@"
}

# global START RANK: the whole model, behind the row START.
global() {
  cell "$1-global-$2" "$build/bin/kvc-factorize" "$out/thin-$1-$2" --source "$model" -o "$out/thin" --force \
    "${text[@]}" --tune global --tune-tokens "$global_tokens"
}

local_tuning=(--tune local --tune-tokens "$tokens" --tune-passes "$passes")
for rank in $ranks; do
  for name in $rows; do
    case $name in
      *-global) global "${name%-global}" "$rank" ;;
      uniform) thin uniform "$rank" ;;
      spread) thin spread "$rank" --spread ;;
      uniform-local) thin uniform-local "$rank" "${local_tuning[@]}" ;;
      spread-local) thin spread-local "$rank" --spread "${local_tuning[@]}" ;;
      *) echo "ROWS: no such row: $name" >&2; exit 2 ;;
    esac
  done
done
rm -rf "$out/thin"

keys_header "ranks, tuning"
for rank in $ranks; do
  for name in $rows; do
    keys_row "$name-$rank" "$rank" "$name"
  done
done
