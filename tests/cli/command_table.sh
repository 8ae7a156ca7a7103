# Every command that writes, on small inputs, for tests that disturb it or vary its threads. A test
# sets $bin, $source and $work, sources this file, calls make_inputs in $work, and each_command with
# the name of a function:
#
#   function NAME OUT command...     NAME for messages; OUT, the file or folder that it writes
#
# Commands that this build does not have are left out.

make_inputs() {
  cp -r "$source/examples/models/needle-llama" model && chmod -R u+w model
  head -c 60000 "$source/examples/text/alice-calibration.txt" > t.txt
  printf '1 2 3 4 5\n7 8 9\n' > ids
  "$bin/kvc-export" model -o full --method full --no-verify --quiet > /dev/null || exit 1
  mkdir results
  "$bin/kvc-eval" ppl full --text t.txt --context 128 --decode 16 --samples 1 --quiet --json > results/ppl.json || exit 1
  cat > recipe.json << 'R'
{"recipe": 1, "inputs": {"m": "model", "t": "t.txt"}, "stages": [
  {"name": "b", "command": "kvc-export", "arguments": ["$m"], "options": {"method": "uniform", "budget": "50%", "no-verify": true}},
  {"name": "p", "command": "kvc-eval ppl", "arguments": ["@b"], "options": {"text": "$t", "context": "128", "decode": "16", "samples": "1"}}]}
R
}

each_command() {
  local do=$1 calib=(--calib t.txt --quiet)
  run() { local program=$3; [ ! -x "$bin/$program" ] || "$do" "$1" "$2" "$bin/$program" "${@:4}"; }
  run factorize-weight out kvc-factorize model -o out --objective weight --rank 50% --layout latent:1 --quiet
  run factorize-input out kvc-factorize model -o out --objective input-query --rank 50% --layout latent:1 --calib-tokens 1k --window 128 --held-back 1 "${calib[@]}"
  run profile out kvc-profile model -o out --context 128 --horizon 16 --windows 3 "${calib[@]}"
  run train out kvc-train model/config.json -o out --text t.txt --steps 3 --checkpoint-every 1 --batch 1 --length 64 --quiet
  run export out kvc-export model -o out --method uniform --budget 50% --quiet
  run logits out.npy kvc-eval logits full --ids ids -o out.npy --quiet
  run compare out.json kvc-eval compare full --policy uniform/snapkv --policy streaming --budget 50% --text t.txt --context 128 --decode 16 --samples 3 -o out.json --quiet
  run report out.html kvc report results -o out.html --quiet
  run recipe out kvc run recipe.json -o out --quiet
}

# What differs from run to run: times and memory, and a manifest's hash of itself where it has times. Everything else is the
# same bytes.
timeless() { grep -avE '"(seconds|peak_rss_bytes|choosing_seconds|token_seconds|peak_bytes|[a-z]*_tokens_per_second|started|ended_at)":|result_sha256|threads|^  "sha256":' "$1"; }
# digest OUT: one line for each file below it.
digest() {
  local file
  find "$1" -type f ! -name '.*' ! -name report.html 2> /dev/null | sort | while read -r file; do
    echo "${file#"$1"} $(timeless "$file" | sha256sum)"
  done
}
