#!/usr/bin/env bash
# usage: gpu_session.sh BIN SOURCE WORK
# scripts/gpu_session.sh run, with the emulator in a device's place and tiny sizes.
set -euo pipefail
bin=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work"
fail() { echo "FAILED: $*"; exit 1; }
KVC_BIN=$bin "$source/scripts/gpu_session.sh" bundles "$work"
session() { KVC_DEVICE=emulator KVC_TESTS=$work/none OUT=$work/$1 KVC_BIN=$2 "$source/scripts/gpu_session.sh" run "$work"; }

session out "$bin" || fail "$(cat "$work/out/summary.txt" "$work/out/log.txt")"
[ "$(wc -l < "$work/out/tables.jsonl")" = 6 ] || fail "expected six tables: $(cat "$work/out/summary.txt")"
python3 - "$work/out/tables.jsonl" << 'PYTHON'
import json, sys

tables = {t["name"]: t["result"] for t in map(json.loads, open(sys.argv[1]))}
assert all(t["device"] == "emulator" for t in tables.values()), tables.keys()
errors = [shape["largest_error"] for name in ("attention", "compress") for shape in tables[name]["shapes"]]
assert len(errors) == 16 and max(errors) < 0.05, errors
PYTHON

for same in "bundle at 100%" "bundle at 25%" "thin at 100%" "bits at 25%"; do
  grep -q "^$same: the same" "$work/out/log.txt" || fail "expected tokens of $same: $(cat "$work/out/log.txt")"
done

# A step that fails says so, the others run, and the session fails.
mkdir "$work/broken"
for command in kvc-run kvc-eval kvc-export make_shape; do ln -s "$bin/$command" "$work/broken/"; done
printf '#!/bin/sh\necho "no such device" >&2\nexit 7\n' > "$work/broken/kvc-bench"
chmod +x "$work/broken/kvc-bench"
! session failed "$work/broken" > /dev/null || fail "expected a failed session"
grep -q "attention: FAILED with code 7: no such device" "$work/failed/summary.txt" || fail "$(cat "$work/failed/summary.txt")"
grep -q "same_tokens: passed" "$work/failed/summary.txt" || fail "$(cat "$work/failed/summary.txt")"
grep -q "6 of the steps failed" "$work/failed/summary.txt" || fail "$(cat "$work/failed/summary.txt")"
rm -rf "$work"
echo "a session"
