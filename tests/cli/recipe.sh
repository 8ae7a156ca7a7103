#!/usr/bin/env bash
# usage: recipe.sh BIN SOURCE WORK
# The bundled recipe: every stage runs once, is kept while its inputs are the same, and runs again
# when they are not; failed gates and failed stages decide the exit code; the report is one file.
set -euo pipefail
bin=$1 source=$2 work=$3
recipe=$source/examples/recipes/bundled.json
rm -rf "$work" && mkdir -p "$work"
fail() { echo "FAILED: $*"; exit 1; }
states() { "$bin/kvc" run "$@" --quiet --json | grep '"state"' | sort | uniq -c | tr -s ' '; }
# code WORD command...: that exit code, the word in the error.
refused() {
  local code=$1 word=$2 got=0
  shift 2
  "$@" > /dev/null 2> "$work/stderr" || got=$?
  [ "$got" -eq "$code" ] && grep -q -e "$word" "$work/stderr" || fail "${*##*/}: code $got: $(cat "$work/stderr")"
}

[[ "$(states "$recipe" -o "$work/out" --dry-run)" == *'2 "state": "to run"'* ]] || fail "the plan"
[ ! -e "$work/out" ] || fail "a dry run wrote something"
[ "$(states "$recipe" -o "$work/out")" = ' 9 "state": "ran",' ] || fail "not every stage ran"
cp "$work/out/report.html" "$work/first.html"
[ "$(states "$recipe" -o "$work/out")" = ' 9 "state": "kept",' ] || fail "not every stage was kept"
cmp "$work/out/report.html" "$work/first.html" || fail "another report of the same results"
for word in "Quality gates" "Comparison: compare" "Key ranks" "Spectrum" "Budgets: compressed" "Utility curves" "Needles: needle"; do
  grep -q "$word" "$work/out/report.html" || fail "report: expected \"$word\""
done
! grep -Eq '<script[^>]* src|<link|<img|<iframe' "$work/out/report.html" || fail "the report needs something else"
grep -q "All 2 quality gates passed" "$work/out/report.html" || fail "the verdict"
# Two runs side by side; what is no report is not replaced.
# (Through a file: grep -q leaves at the first match, and a command whose reader is gone fails.)
"$bin/kvc" report "$work/out" "$work/out" -o "$work/two.html" > "$work/two.txt"
grep -q "^No difference beyond the error" "$work/two.txt" || fail "two runs"
grep -q "<h2>Differences</h2>" "$work/two.html" || fail "the page of two runs"
echo mine > "$work/comparison.html"
(cd "$work" && refused 2 "comparison.html" "$bin/kvc" report out out) && [ "$(cat "$work/comparison.html")" = mine ] ||
  fail "another file was replaced"

# Another text: what reads it runs, what does not is kept.
head -n 900 "$source/examples/text/alice-evaluation.txt" > "$work/other.txt"
[ "$(states "$recipe" -o "$work/out" --set "held-back=$work/other.txt")" = \
  $' 6 "state": "kept",\n 3 "state": "ran",' ] || fail "another held-back text"
# A changed output is made again; the same bytes come out, so that the stages behind it are kept.
printf 'x' >> "$work/out/profile/profile.json"
[ "$(states "$recipe" -o "$work/out" --set "held-back=$work/other.txt")" = \
  $' 8 "state": "kept",\n 1 "state": "ran",' ] || fail "a changed output"

# A gate that fails: everything is there, exit code 5.
sed 's/"max-ppl-increase": "30%"/"max-kld": 1e-9/; s|"\.\./|"'"$source"'/examples/|' "$recipe" > "$work/gate.json"
code=0
"$bin/kvc" run "$work/gate.json" -o "$work/out" --quiet > "$work/stdout" || code=$?
[ "$code" -eq 5 ] && grep -q "max-kld FAILED" "$work/stdout" && grep -q "FAILED" "$work/out/report.html" ||
  fail "gate: code $code: $(cat "$work/stdout")"

# What the recipe did not make stays: by name, and its inputs with --force too. One run at a time.
mkdir -p "$work/mine/full" && echo mine > "$work/mine/full/precious"
refused 2 "full: expected only files that a run of this recipe made, got precious" "$bin/kvc" run "$recipe" -o "$work/mine" --quiet
[ "$(cat "$work/mine/full/precious")" = mine ] && [ ! -e "$work/mine/thin" ] || fail "a folder of others was touched"
echo mine > "$work/report.html"
refused 2 "report.html" "$bin/kvc" run "$recipe" -o "$work" --quiet
rm "$work/report.html"
cp -r "$source/examples/models/needle-llama" "$work/mine/thin"
refused 2 "apart from the inputs" "$bin/kvc" run "$recipe" -o "$work/mine" --set "model=$work/mine/thin" --force --quiet
[ -e "$work/mine/thin/tokenizer.json" ] && [ -e "$work/mine/full/precious" ] || fail "an input was touched"
(exec 9< "$work/out"; flock -n 9; refused 2 "no other run" "$bin/kvc" run "$recipe" -o "$work/out" --quiet) || exit 1

# A stage that fails: its exit code, and its name.
sed 's/"budget": "25%", "method": "lukv"/"budget": "0.1%", "method": "lukv"/; s|"\.\./|"'"$source"'/examples/|' \
  "$recipe" > "$work/stage.json"
refused 4 "stage compressed" "$bin/kvc" run "$work/stage.json" -o "$work/out" --quiet
refused 6 "held-back" "$bin/kvc" run "$recipe" -o "$work/out" --set "held-back=$work/nowhere.txt" --quiet
refused 2 "text" "$bin/kvc" run "$recipe" -o "$work/out" --set "text=$work/other.txt"
refused 7 "--device" "$bin/kvc" run "$recipe" -o "$work/out" --device cuda
rm -rf "$work"
echo "the recipe runs"
