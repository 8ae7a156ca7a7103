#!/usr/bin/env bash
# usage: bench/smollm2_tables.sh BUILD TEXT_DIR OUT [keys|budgets]...
# The tables of docs/results.md, measured on SmolLM2-135M (make smollm2). TEXT_DIR holds
# wikitext2-valid.txt, chesterton-brown.txt and austen-emma.txt. One JSON file for each cell lands in
# OUT; a cell that is there is not measured again. Prints the table of keys as Markdown, that of budgets as text.
set -euo pipefail
build=${1:?usage: smollm2_tables.sh BUILD TEXT_DIR OUT [keys|budgets]...}
texts=${2:?TEXT_DIR}
out=${3:?OUT}
shift 3
parts=${*:-keys budgets}
bin=$build/bin
model=$build/models/smollm2
calib=(--calib "$texts/wikitext2-valid.txt" --calib "$texts/chesterton-brown.txt")
scorers=(snapkv expected-attention keydiff knorm streaming output-error output-error:keydiff=0.3)
mkdir -p "$out"

. "$(dirname "$0")/table_cells.sh"

keys() {
  for rank in 50 25 12.5; do
    for objective in weight input input-query input-attention-query; do
      cell "keys-$objective-$rank" "$bin/kvc-factorize" "$model" -o "$out/thin" --force --rank "$rank%" \
        --layout latent:1 --objective "$objective" "${calib[@]}" --held-back 12
    done
    cell "keys-heads-$rank" "$bin/kvc-factorize" "$model" -o "$out/thin" --force --rank "$rank%" \
      --layout latent:heads --objective input-query "${calib[@]}" --held-back 12
  done
  rm -rf "$out/thin"
}

# Profiled on the first half of WikiText-2's lines, judged on the second.
halves() {
  local lines
  lines=$(wc -l < "$texts/wikitext2-valid.txt")
  head -n $((lines / 2)) "$texts/wikitext2-valid.txt" > "$out/wiki-first.txt"
  tail -n +$((lines / 2 + 1)) "$texts/wikitext2-valid.txt" > "$out/wiki-second.txt"
}

profile() {
  [ -d "$out/profile" ] && return
  halves
  local args=()
  for scorer in "${scorers[@]}"; do args+=(--scorer "$scorer"); done
  cell profile "$bin/kvc-profile" "$model" -o "$out/profile" --calib "$out/wiki-first.txt" "${args[@]}" \
    --windows 16 --context 1024
}

# The protocol of kvpress's figures: context 768, the next 128 tokens all kept, six windows; ten needles.
budgets() {
  profile
  cell export-full "$bin/kvc-export" "$model" -o "$out/full" --budget 100% --method full
  local args=(--policy streaming --policy lukv/snapkv/output-error --policy lukv/output-error/output-error)
  for scorer in "${scorers[@]}"; do
    [ "$scorer" = streaming ] || args+=(--policy "uniform/$scorer" --policy "lukv/$scorer")
  done
  [ -s "$out/budgets.txt" ] && return
  echo "== budgets" >&2
  "$bin/kvc-eval" compare "$out/full" --profile "$out/profile" --text "$out/wiki-second.txt" \
    --context 768 --decode 128 --samples 6 --decode-policy append --haystack "$texts/austen-emma.txt" \
    --lengths 1k --depths 0.1,0.3,0.5,0.7,0.9 --needles 2 "${args[@]}" --budget 50%,25%,12.5% \
    -o "$out/compare.json" > "$out/budgets.txt.partial"
  mv "$out/budgets.txt.partial" "$out/budgets.txt"
}

print_keys() {
  keys_header "layout, objective"
  for rank in 50 25 12.5; do
    for name in input-attention-query input-query input weight heads; do
      local label="latent:1, $name"
      [ "$name" = heads ] && label="latent:heads, input-query"
      keys_row "keys-$name-$rank" "$rank" "$label"
    done
  done
}

for part in $parts; do "$part" >&2; done
print_keys
[ ! -s "$out/budgets.txt" ] || { echo && cat "$out/budgets.txt"; }
