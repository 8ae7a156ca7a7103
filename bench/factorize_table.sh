#!/usr/bin/env bash
# usage: bench/factorize_table.sh BUILD TEXT_DIR OUT [RANK]...
# The table of thin keys (docs/experiments/2026-11-thin-keys-by-layout.md) on SmolLM2-135M (make smollm2): layouts at the
# given ranks (default 50 25 12.5 %), uniform and spread, with and without tuning; KLD and perplexity on held-back
# windows, ten needles among 1,000 tokens, true bytes, processor minutes of the row and of the rows that it goes on
# from. TEXT_DIR holds wikitext2-valid.txt, chesterton-brown.txt and austen-emma.txt. JSON files for each row land in
# OUT; a row that is there is not measured again. In the environment:
#   LAYOUTS       default latent:1 latent:heads post-rope rope-pairs
#   ROWS          default uniform spread; further NAME-local and NAME-global, which tune the checkpoint of the row NAME,
#                 layer by layer or as a whole: uniform uniform-local uniform-local-global, and so on. NAME comes first
#   CALIB         texts in TEXT_DIR, default wikitext2-valid.txt chesterton-brown.txt
#   CALIB_TOKENS HELD_BACK         of every row, default 16k tokens and 12 windows
#   LOCAL_OPTIONS GLOBAL_OPTIONS   of the tunings, default --tune-tokens 64k
#   DEVICE        of the tunings, default auto
#   NEEDLES       lengths at which needles are looked for, default 1k; 0: none (an export and ten prompts for each row)
#   JOBS THREADS  rows side by side (ranks, layouts and kinds of ranks), and threads of each; default 1 and all
# Prints Markdown.
set -euo pipefail
build=${1:?usage: factorize_table.sh BUILD TEXT_DIR OUT [RANK]...}
texts=${2:?TEXT_DIR}
out=${3:?OUT}
shift 3
ranks=${*:-50 25 12.5}
layouts=${LAYOUTS:-latent:1 latent:heads post-rope rope-pairs}
rows=${ROWS:-uniform spread}
lengths=${NEEDLES:-1k}
read -ra local_options <<< "${LOCAL_OPTIONS:---tune-tokens 64k}"
read -ra global_options <<< "${GLOBAL_OPTIONS:---tune-tokens 64k}"
model=$build/models/smollm2
mkdir -p "$out"

. "$(dirname "$0")/table_cells.sh"

text=(--held-back "${HELD_BACK:-12}" --calib-tokens "${CALIB_TOKENS:-16k}")
for file in ${CALIB:-wikitext2-valid.txt chesterton-brown.txt}; do text+=(--calib "$texts/$file"); done

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
  cell "$name" timed "$out/$name.time" "$build/bin/kvc-factorize" "$@" -o "$out/thin-$name" --force \
    --threads "${THREADS:-0}" "${text[@]}"
}

cell_name() { echo "${1/:/-}-$2-$3"; }  # cell_name LAYOUT NAME RANK

# row LAYOUT NAME RANK
row() {
  local id before
  id=$(cell_name "$@")
  before=$out/thin-$(cell_name "$1" "${2%-*}" "$3")
  local tuned=("$before" --source "$model" --device "${DEVICE:-auto}")
  case $2 in
    uniform) factorize "$id" "$model" --layout "$1" --rank "$3%" ;;
    spread) factorize "$id" "$model" --layout "$1" --rank "$3%" --spread ;;
    *-global) factorize "$id" "${tuned[@]}" --tune global "${global_options[@]}" ;;
    *-local) factorize "$id" "${tuned[@]}" --tune local "${local_options[@]}" ;;
    *) echo "ROWS: no such row: $2" >&2; exit 2 ;;
  esac
  needles "$id" "$out/thin-$id"
}

# needles CELL CHECKPOINT
needles() {
  [ "$lengths" = 0 ] || [ -s "$out/$1-needle.json" ] || [ ! -d "$2" ] && return
  cell "$1-export" "$build/bin/kvc-export" "$2" -o "$out/bundle-$1" --force --budget 100% --method full --no-verify
  cell "$1-needle" "$build/bin/kvc-eval" needle "$out/bundle-$1" --haystack "$texts/austen-emma.txt" --lengths "$lengths" \
    --depths 0.1,0.3,0.5,0.7,0.9 --samples 2 --min-needle 0 --threads "${THREADS:-0}"
  rm -rf "$out/bundle-$1" "$out/$1-export.json"
}

# chain LAYOUT RANK KIND: the rows that begin with one kind of ranks, each from the one before it.
chain() {
  local name
  for name in $rows; do
    [ "${name%%-*}" != "$3" ] || row "$1" "$name" "$2"
  done
}

print_row() {  # print_row LAYOUT NAME RANK
  python3 - "$out" "$1" "$2" "$3" << 'PYTHON'
import json, os, sys

out, layout, name, rank = sys.argv[1:]


def path(row, suffix):
    return os.path.join(out, f"{layout.replace(':', '-')}-{row}-{rank}{suffix}")


def minutes(row):
    own = sum(map(float, open(path(row, ".time")).read().split())) / 60
    return own + (minutes(row.rsplit("-", 1)[0]) if "-" in row else 0)


cell = json.load(open(path(name, ".json")))
kld = cell.get("kld_after_tuning", cell.get("kld_before_tuning"))
change = 100 * (cell["perplexity"] / cell["perplexity_source"] - 1)
found = "-"
if os.path.exists(path(name, "-needle.json")):
    lengths = {}
    for at in json.load(open(path(name, "-needle.json")))["cells"]:
        lengths.setdefault(at["length"], []).append(at["accuracy"])
    found = ", ".join(f"{100 * sum(a) / len(a):.0f} %" for a in lengths.values())
print(f"| {100 * cell['key_bytes_share']:.1f} % | {layout} | {name} | {kld:.3f} | {cell['perplexity']:.2f} ({change:+.1f} %) | "
      f"{found} | {cell['token_cost']['key_bytes']:,} | {minutes(name):.1f} | {cell['peak_rss_bytes'] / 2**20:,.0f} |")
PYTHON
}

needles source "$model"
for rank in $ranks; do
  for layout in $layouts; do
    for kind in uniform spread; do
      while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-1}" ]; do wait -n; done
      chain "$layout" "$rank" "$kind" &
    done
  done
done
while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n; done

echo "| key bytes | layout | ranks, tuning | KLD | perplexity | needles ($lengths) | bytes of a token's keys | minutes | peak memory (MiB) |"
echo "|---|---|---|---|---|---|---|---|---|"
for rank in $ranks; do
  for layout in $layouts; do
    for name in $rows; do
      [ ! -s "$out/$(cell_name "$layout" "$name" "$rank").json" ] || print_row "$layout" "$name" "$rank"
    done
  done
done
