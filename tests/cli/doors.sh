#!/usr/bin/env bash
# usage: doors.sh BIN SOURCE WORK
# What every command refuses at its door: a path that is not there (6, named), an option that is not
# a number (2, named), lengths beyond the model's context (before any weight is read, with --dry-run
# too); and what kvc-run says about texts that the context cuts short.
set -uo pipefail
bin=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
model=$source/examples/models/needle-llama
text=$source/examples/text/alice-calibration.txt
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# refused CODE WORD command...: the exit code, one error line of at most 300 characters with WORD.
refused() {
  local code=$1 word=$2 got=0
  shift 2
  [ -x "$bin/$1" ] || return 0
  "$bin/"$* > stdout 2> stderr || got=$?
  local line
  line=$(grep 'error:' stderr)
  [ "$got" -eq "$code" ] && [[ "$line" == *"$word"* ]] || fail "$*: expected code $code and \"$word\", got $got: $(cat stderr)"
  [ "${#line}" -le 300 ] || fail "$*: a message of ${#line} characters"
}

"$bin/kvc-export" "$model" -o full --method full --no-verify --quiet > /dev/null || fail "no bundle"
cp -r "$model" model && cp "$text" t.txt && echo "1 2 3" > ids
cat > recipe.json << 'R'
{"recipe": 1, "inputs": {"m": "model"}, "stages": [{"name": "b", "command": "kvc-export", "arguments": ["$m"]}]}
R

# Every argument and option that names a path.
while read -r line; do
  # shellcheck disable=SC2086  # words
  [ -z "$line" ] || refused 6 nowhere $line
done << 'T'
kvc-factorize nowhere -o o --objective weight --rank 50%
kvc-factorize model -o o --rank 50% --calib nowhere
kvc-factorize model -o o --calib t.txt --source nowhere --tune global
kvc-profile nowhere -o o --calib t.txt
kvc-profile model -o o --calib nowhere --context 256
kvc-export nowhere -o o
kvc-export model -o o --profile nowhere --method lukv
kvc-export --verify nowhere
kvc-export model -o o --method auto --text nowhere
kvc-export model -o o --method auto --text t.txt --haystack nowhere
kvc-export model -o o --method auto --text t.txt --candidate nowhere
kvc-export model -o o --method auto --text t.txt --candidate model,nowhere
kvc-run nowhere --prompt x
kvc-run full --prompt-file nowhere
kvc-bench nowhere
kvc-bench full --text nowhere --prompt 16 --decode 2 --depths 0
kvc-eval tokenize nowhere --text t.txt
kvc-eval tokenize model --text nowhere
kvc-eval logits nowhere --ids ids -o o.npy
kvc-eval logits full --ids nowhere -o o.npy
kvc-eval ppl nowhere --text t.txt --context 64 --decode 8
kvc-eval ppl full --text nowhere --context 64 --decode 8
kvc-eval kld nowhere --against full --text t.txt --context 64 --decode 8
kvc-eval kld full --against nowhere --text t.txt --context 64 --decode 8
kvc-eval kld full --against full --text nowhere --context 64 --decode 8
kvc-eval needle nowhere --haystack t.txt
kvc-eval needle full --haystack nowhere
kvc-eval ruler nowhere --haystack t.txt
kvc-eval ruler full --haystack nowhere
kvc-eval lines nowhere --file t.txt
kvc-eval lines full --file nowhere
kvc-eval longbench nowhere t.txt
kvc-eval longbench full nowhere
kvc-eval longbench full t.txt --template nowhere
kvc-eval compare nowhere --policy uniform --budget 50% --text t.txt --context 64 --decode 8
kvc-eval compare full --bundle nowhere --text t.txt --context 64 --decode 8
kvc-eval compare full --base nowhere --policy uniform --budget 50% --text t.txt --context 64 --decode 8
kvc-eval compare full --policy uniform --budget 50% --text nowhere --context 64 --decode 8
kvc-eval compare full --policy uniform --budget 50% --haystack nowhere
kvc-eval compare full --policy lukv --budget 50% --text t.txt --profile nowhere --context 64 --decode 8
kvc-train nowhere -o o --text t.txt
kvc-train model/config.json -o o --text nowhere
kvc-train model/config.json -o o --text t.txt --tokenizer nowhere
kvc-train model/config.json -o o --text t.txt --task needle --curriculum nowhere
kvc-train model/config.json -o o --text t.txt --length 64 --steps 1 --batch 1 --init nowhere
kvc run nowhere -o o
kvc run recipe.json -o o --set m=nowhere
kvc report nowhere
T
compgen -G "o*" > /dev/null && { ls; fail "something was left behind"; }

# Every option that takes a number: NaN and infinity are none.
while read -r line; do
  for value in nan inf -inf 1e999; do
    # shellcheck disable=SC2086
    [ -z "$line" ] || refused 2 "${line##* }" $line=$value
  done
done << 'T'
kvc-run full --prompt x -n 2 --temperature
kvc-run full --prompt x -n 2 --top-p
kvc-run full --prompt x -n 2 --top-k
kvc-run full --prompt x --new-tokens
kvc-run full --prompt x -n 2 --threads
kvc-run full --prompt x -n 2 --seed
kvc-run full --prompt x -n 2 --budget
kvc-profile model -o o --calib t.txt --temperature
kvc-profile model -o o --calib t.txt --windows
kvc-profile model -o o --calib t.txt --context
kvc-factorize model -o o --calib t.txt --rank
kvc-factorize model -o o --calib t.txt --lr
kvc-factorize model -o o --calib t.txt --held-back
kvc-export model -o o --budget
kvc-export model -o o --sinks
kvc-export model -o o --tiers
kvc-export model -o o --method auto --text t.txt --least-needles
kvc-train model/config.json -o o --text t.txt --lr
kvc-train model/config.json -o o --text t.txt --last-lr-share
kvc-train model/config.json -o o --text t.txt --weight-decay
kvc-train model/config.json -o o --text t.txt --answer-weight
kvc-train model/config.json -o o --text t.txt --steps
kvc-eval ppl full --text t.txt --max-ppl
kvc-eval ppl full --text t.txt --samples
kvc-eval kld full --against full --text t.txt --max-kld
kvc-eval kld full --against full --text t.txt --min-same-top
kvc-eval kld full --against full --text t.txt --max-ppl-increase
kvc-eval needle full --haystack t.txt --min-needle
kvc-eval needle full --haystack t.txt --depths
kvc-eval ruler full --haystack t.txt --min-score
kvc-bench full --repetitions
kvc-bench full --depths
T
refused 2 "got 0" kvc-run full --prompt x -n 0
refused 2 "got -1" kvc-run full --prompt x --temperature -1
refused 2 "epsilon" kvc-export model -o o --scorer expected-attention:epsilon=nan
refused 2 "keydiff" kvc-export model -o o --scorer output-error:keydiff=nan

# The model's context is 1024 tokens.
for dry in "" --dry-run; do
  # shellcheck disable=SC2086
  {
    refused 2 "context" kvc-eval ppl full --text t.txt --context 1000 --decode 26 $dry
    refused 2 "context" kvc-eval kld full --against full --text t.txt --context 2k --decode 8 $dry
    refused 2 "context" kvc-eval needle full --haystack t.txt --lengths 512,1024 $dry
    refused 2 "context" kvc-eval ruler full --haystack t.txt --lengths 2k --tasks single $dry
    refused 2 "context" kvc-eval compare full --policy uniform --budget 50% --text t.txt --context 1000 --decode 26 $dry
    refused 2 "context" kvc-eval compare full --policy uniform --budget 50% --haystack t.txt --lengths 1024 --needles 1 $dry
    refused 2 "context" kvc-bench full --depths 2k $dry
    refused 3 "prompt: expected 1 to 1024 tokens" kvc-run full --prompt-file t.txt $dry
    refused 3 "prompt 2: expected 1 to 1024 tokens" kvc-run full --prompt x --prompt-file t.txt $dry
  }
done
"$bin/kvc-eval" ppl full --text t.txt --context 1000 --decode 25 --samples 1 --dry-run --quiet > /dev/null || fail "context + decode - 1 tokens fit"

# What was cut short is said, in the JSON too.
"$bin/kvc-run" full --prompt "She had a word" --prompt "Then" -n 5000 --json > run.json 2> stderr || fail "kvc-run: $(cat stderr)"
ended=$(grep -c '"ended": "context"' run.json)
[ "$ended" -eq "$(grep -c "of 5000 new tokens: the model's context of 1024 tokens is full" stderr)" ] || fail "cuts: $(cat stderr)"
"$bin/kvc-run" full --prompt "She had a word" -n 5000 --dry-run > dry.txt && grep -q '"new_tokens": 10[0-9][0-9]' dry.txt || fail "--dry-run promises more than the context holds"

cd / && rm -rf "$work"
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "every door is closed"
