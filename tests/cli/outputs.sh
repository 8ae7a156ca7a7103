#!/usr/bin/env bash
# usage: outputs.sh BIN SOURCE WORK
# What the user has is never lost: outputs that are, hold or lie in an input are refused by every
# command, with --force too; what comes while a command runs stays; a stdout that takes nothing is
# an error. And OPENBLAS_CORETYPE is the user's.
set -uo pipefail
bin=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work/models" && cd "$work" || exit 1
cp -r "$source/examples/models/needle-llama" models/a && chmod -R u+w models
cp "$source/examples/text/alice-evaluation.txt" models/text.txt
ln -s models link
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
state() { find models -type f | sort | xargs sha256sum; }

# refused OUT INPUT command...: exit code 2, both named in one line, nothing changed.
refused() {
  local out=$1 input=$2 before code=0
  shift 2
  before=$(state)
  "$@" > stdout 2> stderr || code=$?
  [ "$code" -eq 2 ] || fail "$*: expected exit code 2, got $code: $(cat stderr)"
  grep 'error:' stderr | grep -F "$out" | grep -qF "$input" || fail "$*: expected $out and $input named: $(cat stderr)"
  [ "$(state)" = "$before" ] || fail "$*: an input changed"
  compgen -G "models*.*" > /dev/null && fail "$*: something was left behind"
}

for out in models/a models/a/ link/a models models/b/../a models/a/thin; do
  refused "$out" models/a "$bin/kvc-factorize" models/a -o "$out" --force --objective weight --rank 50% --quiet
done
for out in models/a models link/a/new; do
  refused "$out" models/a "$bin/kvc-export" models/a -o "$out" --force --method full --no-verify --quiet
  refused "$out" models/a "$bin/kvc-export" models/a -o "$out" --force --method auto --text models/text.txt --quiet
  refused "$out" models/ "$bin/kvc-profile" models/a -o "$out" --force --calib models/text.txt --windows 1 --context 256 --quiet
done
refused models models/a "$bin/kvc-factorize" models/a -o models --force --calib models/text.txt --rank 50% --quiet
train=("$bin/kvc-train" models/a/config.json --text models/text.txt --steps 2 --batch 1 --length 64 --quiet)
refused models/a models/a/ "${train[@]}" -o models/a --force
refused models models/ "${train[@]}" -o models --force

"$bin/kvc-export" models/a -o models/bundle --method full --no-verify --quiet > /dev/null || fail "no bundle"
echo "1 2 3" > models/ids.txt
refused models/ids.txt models/ids.txt "$bin/kvc-eval" logits models/bundle --ids models/ids.txt -o models/ids.txt
refused models/bundle/model.onnx models/bundle "$bin/kvc-eval" logits models/bundle --ids models/ids.txt -o models/bundle/model.onnx
refused models/text.txt models/text.txt "$bin/kvc-eval" compare models/bundle --policy uniform/snapkv --budget 50% --context 256 --decode 32 \
  --text models/text.txt -o models/text.txt
refused models/bundle/new.json models/bundle "$bin/kvc-eval" compare models/bundle --policy uniform/snapkv --budget 50% --context 256 --decode 32 \
  --text models/text.txt --save-prompts models/bundle/new.json
echo '{"command": "kvc-run"}' > models/run.json
refused models/run.json models/run.json "$bin/kvc" report models -o models/run.json

# A folder that is filled while a command runs, and one with --force that gets another file.
for force in "" --force; do
  rm -rf out out.*
  [ -z "$force" ] || { mkdir out && echo old > out/old; }
  code=0
  "${train[@]}" -o out $force > /dev/null 2> stderr &
  command=$!
  while [ ! -e out.partial ] && kill -0 "$command" 2> /dev/null; do sleep 0.05; done
  mkdir -p out && echo mine > out/precious
  wait "$command" || code=$?
  [ "$code" -eq 2 ] && grep -q "out.finished" stderr || fail "what came meanwhile: code $code: $(cat stderr)"
  [ "$(cat out/precious)" = mine ] || fail "what came meanwhile is gone"
  [ -z "$force" ] || [ "$(cat out/old)" = old ] || fail "what was there is gone"
  [ -e out.finished/model.safetensors ] || fail "the finished work is gone"
done

# stdout: a full device, a reader that went, none at all.
for words in 1 20000; do
  yes word | head -n "$words" > words.txt
  tokenize=("$bin/kvc-eval" tokenize models/a --text words.txt)
  "${tokenize[@]}" > /dev/full 2> stderr; code=$?
  [ "$code" -eq 6 ] && grep -q "stdout" stderr || fail "full device: code $code: $(cat stderr)"
  { sleep 0.5; "${tokenize[@]}" 2> stderr; echo $? > code; } | true
  [ "$(cat code)" = 6 ] && grep -q "stdout" stderr || fail "closed pipe: code $(cat code): $(cat stderr)"
  "${tokenize[@]}" --json >&- 2> stderr; code=$?
  [ "$code" -eq 6 ] && grep -q "stdout" stderr || fail "no stdout: code $code: $(cat stderr)"
done
"$bin/kvc" --version > /dev/full 2> stderr; code=$?
[ "$code" -eq 6 ] || fail "--version on a full device: code $code"

# OpenBLAS: the user's kernels are kept, and told; what is chosen without it is better than SSE3.
[[ "$(OPENBLAS_CORETYPE=Prescott "$bin/kvc-eval" --version)" == *"OpenBLAS kernels Prescott" ]] || fail "the user's OPENBLAS_CORETYPE is not kept"
if grep -q avx2 /proc/cpuinfo; then
  [[ "$(env -u OPENBLAS_CORETYPE "$bin/kvc-eval" --version)" != *"Prescott"* ]] || fail "SSE3 kernels on a processor with AVX2"
fi

cd / && rm -rf "$work"
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "nothing is lost"
