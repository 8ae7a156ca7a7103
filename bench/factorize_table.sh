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

# row NAME RANK OPTION...
row() {
  local name=$1 rank=$2
  shift 2
  [ -s "$out/$name-$rank.json" ] && return
  echo "== $name, $rank %" >&2
  "$build/bin/kvc-factorize" "$build/models/smollm2" -o "$out/thin" --force --rank "$rank%" --layout latent:1 \
    --calib "$texts/wikitext2-valid.txt" --calib "$texts/chesterton-brown.txt" --held-back 12 \
    "$@" --quiet --json > "$out/$name-$rank.json.partial"
  mv "$out/$name-$rank.json.partial" "$out/$name-$rank.json"
}
value() { grep -m1 "\"$2\":" "$out/$1.json" 2>/dev/null | sed 's/.*: *//; s/,$//'; }

tuning=(--tune local --tune-tokens "$tokens" --tune-passes "$passes")
for rank in $ranks; do
  row uniform "$rank"
  row spread "$rank" --spread
  row uniform-local "$rank" "${tuning[@]}"
  row spread-local "$rank" --spread "${tuning[@]}"
done
rm -rf "$out/thin"

echo "| key bytes | ranks, tuning | KLD | perplexity | seconds | peak memory (MiB) |"
echo "|---|---|---|---|---|---|"
for rank in $ranks; do
  for name in uniform spread uniform-local spread-local; do
    file=$name-$rank
    [ -s "$out/$file.json" ] || continue
    kld=$(value "$file" kld_after_tuning)
    awk -v rank="$rank" -v name="$name" -v kld="${kld:-$(value "$file" kld_before_tuning)}" \
      -v ppl="$(value "$file" perplexity)" -v source="$(value "$file" perplexity_source)" \
      -v seconds="$(value "$file" seconds)" -v rss="$(value "$file" peak_rss_bytes)" \
      'BEGIN { printf "| %s %% | %s | %.3f | %.2f (%+.1f %%) | %.0f | %.0f |\n", rank, name, kld, ppl,
               100 * (ppl / source - 1), seconds, rss / 1048576 }'
  done
done
