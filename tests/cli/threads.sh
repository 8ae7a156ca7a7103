#!/usr/bin/env bash
# usage: threads.sh BIN SOURCE WORK
# The same bytes for 1, 2 and 4 threads: what every command writes, and what those that measure or
# generate print.
set -uo pipefail
bin=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
. "$source/tests/cli/command_table.sh"
make_inputs
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# same NAME OUT command...: OUT - is stdout.
same() {
  local name=$1 out=$2 threads want="" got
  shift 2
  for threads in 1 2 4; do
    rm -rf out out.*
    "$@" --threads $threads > stdout 2> stderr || { fail "$name: $threads threads: $(cat stderr)"; return; }
    if [ "$out" = - ]; then got=$(timeless stdout | sha256sum); else got=$(digest "$out"); fi
    [ -z "$want" ] || [ "$got" = "$want" ] || fail "$name: other bytes with $threads threads"
    want=${want:-$got}
  done
}
each_command same
"$bin/kvc-export" model -o half --method uniform --budget 50% --no-verify --quiet > /dev/null || fail "no bundle"
walk=(--text t.txt --context 128 --decode 16 --samples 2 --json --quiet)
same run - "$bin/kvc-run" half --prompt "She said that" --prompt "The queen" -n 24 --temperature 0.8 --json --quiet
same ppl - "$bin/kvc-eval" ppl half "${walk[@]}"
same kld - "$bin/kvc-eval" kld half --against full "${walk[@]}"
same needle - "$bin/kvc-eval" needle half --haystack t.txt --lengths 256 --samples 1 --json --quiet
same ruler - "$bin/kvc-eval" ruler half --haystack t.txt --lengths 256 --samples 1 --tasks single,tracking --json --quiet
same tokenize - "$bin/kvc-eval" tokenize model --text t.txt --quiet
cd / && rm -rf "$work"
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "the same bytes for 1, 2 and 4 threads"
