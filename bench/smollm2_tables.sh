#!/usr/bin/env bash
# usage: bench/smollm2_tables.sh BUILD TEXT_DIR OUT [keys|budgets|needles]...
# The tables of docs/results.md, measured on SmolLM2-135M (make smollm2). TEXT_DIR holds
# wikitext2-valid.txt, chesterton-brown.txt and austen-emma.txt. One JSON file for each cell lands in
# OUT; a cell that is there is not measured again. Prints the tables as Markdown.
set -euo pipefail
build=${1:?usage: smollm2_tables.sh BUILD TEXT_DIR OUT [keys|budgets|needles]...}
texts=${2:?TEXT_DIR}
out=${3:?OUT}
shift 3
parts=${*:-keys budgets needles}
bin=$build/bin
model=$build/models/smollm2
calib=(--calib "$texts/wikitext2-valid.txt" --calib "$texts/chesterton-brown.txt")
scorers=(snapkv expected-attention keydiff knorm streaming)
mkdir -p "$out"

# cell NAME command...: the command's JSON into OUT/NAME.json, once.
cell() {
  local name=$1
  shift
  [ -s "$out/$name.json" ] && return
  echo "== $name" >&2
  "$@" --quiet --json > "$out/$name.json.partial"
  mv "$out/$name.json.partial" "$out/$name.json"
}
value() { grep -m1 "\"$2\":" "$out/$1.json" 2>/dev/null | sed 's/.*: *//; s/,$//' || echo -; }

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

profile() {
  [ -d "$out/profile" ] && return
  local args=()
  for scorer in "${scorers[@]}"; do args+=(--scorer "$scorer"); done
  cell profile "$bin/kvc-profile" "$model" -o "$out/profile" --calib "$texts/wikitext2-valid.txt" \
    "${args[@]}" --windows 16 --context 1024
}

full() { [ -d "$out/full" ] || cell export-full "$bin/kvc-export" "$model" -o "$out/full" --budget 100% --method full; }

# bundle METHOD SCORER BUDGET: into OUT/bundle
bundle() {
  "$bin/kvc-export" "$model" -o "$out/bundle" --force --no-verify --quiet --budget "$3%" --method "$1" \
    --scorer "$2" --profile "$out/profile" > /dev/null
}

policies() {
  for scorer in "${scorers[@]}"; do echo "uniform $scorer"; done
  for scorer in snapkv expected-attention keydiff knorm; do echo "lukv $scorer"; done
}

# The protocol of kvpress's figures: context 768, the next 128 tokens all kept, six windows.
budgets() {
  profile
  full
  for budget in 50 25 12.5; do
    policies | while read -r method scorer; do
      [ -s "$out/kld-$method-$scorer-$budget.json" ] && continue
      bundle "$method" "$scorer" "$budget" < /dev/null
      cell "kld-$method-$scorer-$budget" "$bin/kvc-eval" kld "$out/bundle" --against "$out/full" \
        --text "$texts/wikitext2-valid.txt" --context 768 --decode 128 --samples 6 --batch 6 \
        --decode-policy append < /dev/null
    done
  done
}

needles() {
  profile
  full
  local grid=(--haystack "$texts/austen-emma.txt" --lengths 1k --depths 0.1,0.3,0.5,0.7,0.9 --samples 2)
  cell needle-full "$bin/kvc-eval" needle "$out/full" "${grid[@]}"
  for budget in 50 25 12.5; do
    for scorer in snapkv keydiff; do
      for method in uniform lukv; do
        [ -s "$out/needle-$method-$scorer-$budget.json" ] && continue
        bundle "$method" "$scorer" "$budget"
        cell "needle-$method-$scorer-$budget" "$bin/kvc-eval" needle "$out/bundle" "${grid[@]}"
      done
    done
  done
}

print_keys() {
  echo "| key bytes | layout, objective | KLD | perplexity | seconds | peak memory (MiB) |"
  echo "|---|---|---|---|---|---|"
  for rank in 50 25 12.5; do
    for name in input-attention-query input-query input weight heads; do
      local file=keys-$name-$rank label="latent:1, $name"
      [ "$name" = heads ] && label="latent:heads, input-query"
      [ -s "$out/$file.json" ] || continue
      awk -v rank="$rank" -v label="$label" -v kld="$(value "$file" kld_before_tuning)" \
        -v ppl="$(value "$file" perplexity)" -v source="$(value "$file" perplexity_source)" \
        -v seconds="$(value "$file" seconds)" -v rss="$(value "$file" peak_rss_bytes)" \
        'BEGIN { printf "| %s %% | %s | %.3f | %.2f (%+.1f %%) | %.0f | %.0f |\n", rank, label, kld, ppl,
                 100 * (ppl / source - 1), seconds, rss / 1048576 }'
    done
  done
}

print_budgets() {
  echo "| bytes | method, scorer | KLD | perplexity | needles at 1K | allocated after decoding |"
  echo "|---|---|---|---|---|---|"
  for budget in 50 25 12.5; do
    policies | while read -r method scorer; do
      local file=kld-$method-$scorer-$budget
      [ -s "$out/$file.json" ] || continue
      awk -v budget="$budget" -v label="$method, $scorer" -v kld="$(value "$file" kld_mean)" \
        -v ppl="$(value "$file" perplexity)" -v against="$(value "$file" perplexity_against)" \
        -v needle="$(value "needle-$method-$scorer-$budget" accuracy)" \
        -v allocated="$(value "$file" allocated_bytes)" -v full="$(value "$file" full_bytes)" \
        'BEGIN { found = needle == "-" || needle == "" ? "-" : sprintf("%.0f %%", 100 * needle);
                 printf "| %s %% | %s | %.3f | %.2f (%+.1f %%) | %s | %.1f %% |\n", budget, label, kld, ppl,
                 100 * (ppl / against - 1), found, 100 * allocated / full }'
    done
  done
}

for part in $parts; do "$part" >&2; done
rm -rf "$out/bundle"
print_keys
echo
print_budgets
