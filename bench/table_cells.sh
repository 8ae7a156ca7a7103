# Sourced by the scripts that measure tables: `out` is the folder of results.

# cell NAME command...: the command's JSON into OUT/NAME.json, once.
cell() {
  local name=$1
  shift
  [ -s "$out/$name.json" ] && return
  echo "== $name" >&2
  "$@" --quiet --json > "$out/$name.json.partial"
  mv "$out/$name.json.partial" "$out/$name.json"
}

# value NAME KEY: the first such number of a cell, or nothing.
value() { grep -m1 "\"$2\":" "$out/$1.json" 2>/dev/null | sed 's/.*: *//; s/,$//' || true; }

keys_header() {  # keys_header WHAT
  echo "| key bytes | $1 | KLD | perplexity | seconds | peak memory (MiB) |"
  echo "|---|---|---|---|---|---|"
}

# keys_row CELL RANK LABEL: one kvc-factorize run, tuned or not, if it is there.
keys_row() {
  local kld
  [ -s "$out/$1.json" ] || return 0
  kld=$(value "$1" kld_after_tuning)
  awk -v rank="$2" -v label="$3" -v kld="${kld:-$(value "$1" kld_before_tuning)}" -v ppl="$(value "$1" perplexity)" \
    -v source="$(value "$1" perplexity_source)" -v seconds="$(value "$1" seconds)" \
    -v rss="$(value "$1" peak_rss_bytes)" \
    'BEGIN { printf "| %s %% | %s | %.3f | %.2f (%+.1f %%) | %.0f | %.0f |\n", rank, label, kld, ppl,
             100 * (ppl / source - 1), seconds, rss / 1048576 }'
}
