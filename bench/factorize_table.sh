#!/usr/bin/env bash
# usage: bench/factorize_table.sh BUILD TEXT_DIR OUT [RANK]...
# The table of thin keys (docs/results.md, bench/results/thin_keys.md) on SmolLM2-135M (make smollm2): layouts at the
# given ranks (default 50 25 12.5 %), uniform and spread, with and without tuning; KLD and perplexity on held-back
# windows, ten needles among 1,000 tokens, true bytes, processor minutes of the factorization. TEXT_DIR holds
# wikitext2-valid.txt, chesterton-brown.txt and austen-emma.txt. JSON files for each row land in OUT; a row that is
# there is not measured again. In the environment:
#   LAYOUTS       default latent:1 latent:heads post-rope rope-pairs
#   ROWS          default uniform spread; further uniform-local spread-local, and NAME-global, which goes on with the
#                 checkpoint of the row NAME
#   CALIB_TOKENS HELD_BACK         of every row, default 16k tokens and 12 windows
#   TUNE_TOKENS TUNE_PASSES        shorten the tuning layer by layer
#   GLOBAL_TOKENS                  the one of the whole model behind it
#   NEEDLES=0     measures none (they take an export and ten prompts for each row)
# Prints Markdown.
set -euo pipefail
build=${1:?usage: factorize_table.sh BUILD TEXT_DIR OUT [RANK]...}
texts=${2:?TEXT_DIR}
out=${3:?OUT}
shift 3
ranks=${*:-50 25 12.5}
layouts=${LAYOUTS:-latent:1 latent:heads post-rope rope-pairs}
rows=${ROWS:-uniform spread}
global_tokens=${GLOBAL_TOKENS:-64k}
local_tuning=(--tune local --tune-tokens "${TUNE_TOKENS:-64k}" --tune-passes "${TUNE_PASSES:-4}")
model=$build/models/smollm2
mkdir -p "$out"

. "$(dirname "$0")/table_cells.sh"

text=(--calib "$texts/wikitext2-valid.txt" --calib "$texts/chesterton-brown.txt" --held-back "${HELD_BACK:-12}"
  --calib-tokens "${CALIB_TOKENS:-16k}")

# timed FILE command...: processor seconds, user and system, into FILE.
timed() {
  local file=$1 TIMEFORMAT='%U %S'
  shift
  { time "$@" 2>&3; } 3>&2 2> "$file"
}

# factorize CELL ARGUMENT...: the checkpoint stays for needles and for tuning that goes on with it.
factorize() {
  local name=$1
  shift
  cell "$name" timed "$out/$name.time" "$build/bin/kvc-factorize" "$@" -o "$out/thin-$name" --force "${text[@]}"
}

# row CELL NAME LAYOUT RANK
row() {
  local start
  local from=("$model" --layout "$3" --rank "$4%")
  case $2 in
    *-global)
      start=${1/-global/}
      factorize "$1" "$out/thin-$start" --source "$model" --tune global --tune-tokens "$global_tokens"
      ;;
    uniform) factorize "$1" "${from[@]}" ;;
    spread) factorize "$1" "${from[@]}" --spread ;;
    uniform-local) factorize "$1" "${from[@]}" "${local_tuning[@]}" ;;
    spread-local) factorize "$1" "${from[@]}" --spread "${local_tuning[@]}" ;;
    *) echo "ROWS: no such row: $2" >&2; exit 2 ;;
  esac
}

# needles CELL CHECKPOINT
needles() {
  [ "${NEEDLES:-1}" = 0 ] || [ -s "$out/$1-needle.json" ] || [ ! -d "$2" ] && return
  cell "$1-export" "$build/bin/kvc-export" "$2" -o "$out/bundle" --force --budget 100% --method full --no-verify
  cell "$1-needle" "$build/bin/kvc-eval" needle "$out/bundle" --haystack "$texts/austen-emma.txt" --lengths 1k \
    --depths 0.1,0.3,0.5,0.7,0.9 --samples 2 --min-needle 0
  rm -rf "$out/bundle" "$out/$1-export.json"
}

print_row() {  # print_row CELL NAME LAYOUT
  python3 - "$out/$1" "$2" "$3" << 'PYTHON'
import json, os, sys

path, name, layout = sys.argv[1:]
cell = json.load(open(path + ".json"))
kld = cell.get("kld_after_tuning", cell.get("kld_before_tuning"))
change = 100 * (cell["perplexity"] / cell["perplexity_source"] - 1)
found = json.load(open(path + "-needle.json"))["accuracy"] if os.path.exists(path + "-needle.json") else None
minutes = sum(map(float, open(path + ".time").read().split())) / 60
print(f"| {100 * cell['key_bytes_share']:.1f} % | {layout} | {name} | {kld:.3f} | {cell['perplexity']:.2f} ({change:+.1f} %) | "
      f"{'-' if found is None else f'{10 * found:.0f}/10'} | {cell['token_cost']['key_bytes']:,} | {minutes:.1f} | "
      f"{cell['peak_rss_bytes'] / 2**20:,.0f} |")
PYTHON
}

cell_name() { echo "${1/:/-}-$2-$3"; }  # cell_name LAYOUT NAME RANK

for rank in $ranks; do
  for layout in $layouts; do
    for name in $rows; do
      id=$(cell_name "$layout" "$name" "$rank")
      row "$id" "$name" "$layout" "$rank"
      needles "$id" "$out/thin-$id"
    done
  done
done
needles source "$model"

echo "| key bytes | layout | ranks, tuning | KLD | perplexity | needles | bytes of a token's keys | minutes | peak memory (MiB) |"
echo "|---|---|---|---|---|---|---|---|---|"
for rank in $ranks; do
  for layout in $layouts; do
    for name in $rows; do
      id=$(cell_name "$layout" "$name" "$rank")
      [ ! -s "$out/$id.json" ] || print_row "$id" "$name" "$layout"
    done
  done
done
