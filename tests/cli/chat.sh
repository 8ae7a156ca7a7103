#!/usr/bin/env bash
# usage: chat.sh BIN SOURCE WORK
# kvc-run: texts token by token, stop texts, JSON lines, and a conversation on the bundled model.
set -euo pipefail
bin=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work"
. "$source/tests/cli/checks.sh"

"$bin/kvc-export" "$source/examples/models/needle-llama" -o "$work/half" --budget 50% --scorer keydiff --no-verify --quiet > /dev/null
run=("$bin/kvc-run" "$work/half" --quiet)
prompt="Alice was beginning to get very tired of sitting by her sister on the bank"

# Text: what --json says, whoever reads it; one line on stderr.
"${run[@]}" --prompt "$prompt" -n 20 --json > "$work/json"
"${run[@]}" --prompt "$prompt" -n 20 > "$work/text" 2> "$work/stderr"
python3 - "$work/json" "$work/text" << 'P' || fail "the streamed text is another one"
import json, sys
text = json.load(open(sys.argv[1]))["outputs"][0]["text"]
sys.exit(open(sys.argv[2], encoding="utf-8", newline="").read() != text + "\n")
P
[ "$(wc -l < "$work/stderr")" -eq 1 ] || fail "expected one line on stderr: $(cat "$work/stderr")"
grep -Eq '^decode [0-9.]+ tokens/s, .*cache .*in full it would be ' "$work/stderr" || fail "$(cat "$work/stderr")"

# JSON lines: an object for each token, and at the end one with everything, on one line.
"${run[@]}" --prompt "$prompt" --prompt "The Queen" -n 12 --json-lines > "$work/lines"
python3 - "$work/lines" << 'P' || fail "--json-lines"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
last, tokens = lines[-1], lines[:-1]
assert last["command"] == "kvc-run" and len(last["outputs"]) == 2
for i, output in enumerate(last["outputs"]):
    mine = [token for token in tokens if token["prompt"] == i]
    assert [token["token_id"] for token in mine if "token_id" in token] == output["token_ids"], i
    assert "".join(token["text"] for token in mine) == output["text"], i
P

# The first token comes before the last one is computed.
python3 - "$bin/kvc-run" "$work/half" "$prompt" << 'P' || fail "a pipe gets nothing before the end"
import json, subprocess, sys, time
run = subprocess.Popen([sys.argv[1], sys.argv[2], "--prompt", sys.argv[3], "-n", "400", "--quiet", "--json-lines"],
                       stdout=subprocess.PIPE)
times = []
for line in run.stdout:
    times.append(time.monotonic())
assert run.wait() == 0 and len(times) > 50
assert times[0] < times[-1] - 0.5 * (times[-1] - times[len(times) // 2]) and times[-1] > times[0]
P

# A stop text ends the text in front of it.
word=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["outputs"][0]["text"].split()[2])' "$work/json")
"${run[@]}" --prompt "$prompt" -n 20 --stop "$word" --json > "$work/stopped"
grep -q '"ended": "stop-text"' "$work/stopped" || fail "$(cat "$work/stopped")"
! grep '"text"' "$work/stopped" | grep -q -e "$word" || fail "the stop text is in the text"
expect 2 "empty" "${run[@]}" --prompt "$prompt" --stop ""

# A lost reader is exit code 6.
if [ -e /dev/full ]; then
  code=0
  "${run[@]}" --prompt "$prompt" -n 20 > /dev/full 2> "$work/stderr" || code=$?
  [ $code -eq 6 ] && grep -q "stdout" "$work/stderr" || fail "/dev/full: code $code: $(cat "$work/stderr")"
fi
python3 - "$bin/kvc-run" "$work/half" "$prompt" << 'P' || fail "a lost reader"
import subprocess, sys
run = subprocess.Popen([sys.argv[1], sys.argv[2], "--prompt", sys.argv[3], "-n", "600", "--quiet"],
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
run.stdout.read(1)
run.stdout.close()
error = run.stderr.read().decode()
sys.exit(run.wait() != 6 or "stdout" not in error)
P

# A conversation needs a template; the bundled model has none, and no control tokens but its own.
expect 3 "use --template NAME" "${run[@]}" --chat
expect 2 "expected one of chatml" "${run[@]}" --chat --template pirate
expect 2 "chat" "${run[@]}" --system "Be brief." --prompt x
expect 2 "standard input" "${run[@]}" --chat --template mistral-v1 --prompt x
expect 3 "tokens" "${run[@]}" --chat --template llama3
expect 2 "switch thinking off" "${run[@]}" --chat --template mistral-v1 --no-thinking
expect 2 "chat" "${run[@]}" --no-thinking --prompt x
printf 'Where is the cat?\n/stats\n\nAnd the dog?\n/clear\nAgain\n' |
  "${run[@]}" --chat --template mistral-v1 --system "Be brief." -n 6 > "$work/chat" 2> "$work/stderr" || fail "$(cat "$work/stderr")"
grep -q '^1 turn, ' "$work/stderr" && grep -q '^a new conversation' "$work/stderr" || fail "$(cat "$work/stderr")"
grep -q 'in full it would be' "$work/stderr" || fail "$(cat "$work/stderr")"
printf 'Where is the cat?\nAnd the dog?\n' |
  "${run[@]}" --chat --template mistral-v1 --system "Be brief." -n 6 --json > "$work/chat.json" 2> "$work/stderr"
python3 - "$work/chat.json" "$work/chat" << 'P' || fail "--chat --json"
import json, sys
chat = json.load(open(sys.argv[1]))
assert chat["template"] == "mistral-v1" and [turn["user"] for turn in chat["turns"]] == ["Where is the cat?", "And the dog?"]
text = open(sys.argv[2], encoding="utf-8", newline="").read()
assert text.startswith(chat["turns"][0]["text"] + "\n" + chat["turns"][1]["text"] + "\n"), text
P
rm -rf "$work"
echo "kvc-run talks"
