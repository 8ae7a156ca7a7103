#!/usr/bin/env bash
# usage: ci.sh BIN SOURCE WORK
# The commands in examples/ci, run as a CI would: in a checkout, with kvc on the path. A second run
# keeps every stage; a gate that fails is exit code 5 and a failure in the JUnit file.
set -euo pipefail
bin=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work"
. "$source/tests/cli/checks.sh"
export PATH=$bin:$PATH

commands() {  # commands FILE: those of kvc, one a line
  sed -nE 's/^ +(run:|-) (kvc(-[a-z]+)? .*)$/\2/p' "$source/examples/ci/$1"
}
for file in github.yml gitlab.yml; do
  [ "$(commands $file | wc -l)" -eq 4 ] || fail "$file: expected four commands, got: $(commands $file)"
  if python3 -c 'import yaml' 2> /dev/null; then
    python3 -c 'import sys, yaml; yaml.safe_load(open(sys.argv[1]))' "$source/examples/ci/$file" || fail "$file: no YAML"
  fi
done
[ "$(commands github.yml)" = "$(commands gitlab.yml)" ] || fail "github.yml and gitlab.yml run different commands"

mkdir "$work/checkout" && cp -r "$source/examples" "$work/checkout" && chmod -R u+w "$work/checkout"
cd "$work/checkout"
run() {  # run RECIPE_CODE: every command; the code that the recipe's run shall have
  commands github.yml > "$work/commands"
  while read -r command; do
    code=0
    bash -c "$command" > "$work/stdout" 2> "$work/stderr" < /dev/null || code=$?
    expected=0
    [[ "$command" == *--junit* ]] && expected=$1
    [ $code -eq "$expected" ] || fail "$command: code $code: $(cat "$work/stdout" "$work/stderr")"
    if [[ "$command" == *--junit* ]]; then cp "$work/stdout" "$work/run"; fi
  done < "$work/commands"
}
run 0
[ "$(grep -c ' ran ' "$work/run")" -eq 4 ] || fail "not every stage ran: $(cat "$work/run")"
grep -q '<testsuite name="recipe" tests="6" failures="0" errors="0"' out/junit.xml || fail "$(cat out/junit.xml)"
[ -s out/report.html ] && [ -s out/results/kld-compressed.json ] && [ -s out/compressed/model.onnx ] || fail "an artifact is missing"
grep -q 'compressed keeps' out/report.html || fail "the verdict does not name the bundle"
! grep -q 'not measured: kvc-eval needle' out/report.html || fail "the verdict has not found the needles"
run 0
[ "$(grep -c ' kept ' "$work/run")" -eq 4 ] || fail "not every stage was kept: $(cat "$work/run")"

sed -i 's/"max-ppl-increase": "10%"/"max-kld": 1e-9/' examples/ci/recipe.json
run 5
grep -q 'failures="1"' out/junit.xml && grep -q '<failure message="max-kld: ' out/junit.xml || fail "$(cat out/junit.xml)"

# --check: every problem, with its line.
sed -i 's/"command": "kvc-eval kld"/"command": "kvc-eval klld"/; s/"options"/"option"/' examples/ci/recipe.json
expect 3 'recipe.json:11: stage: expected one of the keys' kvc run examples/ci/recipe.json --check
grep -q 'recipe.json:14: stage "kld-compressed": command: expected one of .*, got "kvc-eval klld"' "$work/both" || fail "$(cat "$work/both")"
expect 3 '"line": 14' kvc run examples/ci/recipe.json --check --json
expect 3 'recipe.json:11: .* more: kvc run --check' kvc run examples/ci/recipe.json -o out
# A stage that fails leaves a JUnit file that says so.
cp "$source/examples/ci/recipe.json" examples/ci
sed -i 's/"budget": "50%"/"budget": "0.1%"/' examples/ci/recipe.json
expect 4 'stage compressed' kvc run examples/ci/recipe.json -o out --junit out/junit.xml --quiet
grep -q 'errors="1"' out/junit.xml || fail "$(cat out/junit.xml)"
expect 2 'apart' kvc run examples/ci/recipe.json -o out --junit examples/ci/recipe.json
cd / && rm -rf "$work"
echo "the CI's commands run"
