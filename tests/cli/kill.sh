#!/usr/bin/env bash
# usage: kill.sh BIN SOURCE WORK [COUNT]
# Every command, ended by SIGKILL at COUNT random moments (default 3): what it writes is whole or
# absent, and running it again gives the bytes of an undisturbed run, with nothing left beside them.
set -uo pipefail
bin=$1 source=$2 work=$3 count=${4:-3}
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
. "$source/tests/cli/command_table.sh"
make_inputs
RANDOM=7
failures=0 kills=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

clean() { rm -rf out out.* .out*; }
# Several texts make out.npy, out.1.npy, ...
beside() { find . -maxdepth 1 \( -name "out*" -o -name ".out*" \) ! -name "$1" ! -name "out.[0-9].npy" | head -3; }

disturb() {
  local name=$1 out=$2 start seconds want moment got i
  shift 2
  clean
  start=$(date +%s%N)
  "$@" > stdout 2> stderr || { fail "$name: undisturbed: $(cat stderr)"; return; }
  seconds=$(($(date +%s%N) - start))
  want=$(digest "$out")
  for ((i = 0; i < count; ++i)); do
    clean
    moment=$(awk -v s="$seconds" -v r="$RANDOM" 'BEGIN { printf "%.3f", s * 1e-9 * (0.05 + r / 32768) }')
    ( timeout -s KILL "$moment" "$@" > stdout 2> stderr ) 2> /dev/null
    got=$?
    [ "$got" -eq 0 ] || kills=$((kills + 1))
    # A recipe's folder grows stage by stage; each stage's output is one of the commands'.
    if [ -e "$out" ] && [ "$name" != recipe ]; then
      [ "$(digest "$out")" = "$want" ] || { fail "$name: killed after $moment s: half of its output"; continue; }
      [ -n "$(beside "$out")" ] || continue
      rm -rf "$out"
    fi
    "$@" > stdout 2> stderr || { fail "$name: again, after $moment s: $(cat stderr)"; continue; }
    [ "$(digest "$out")" = "$want" ] || fail "$name: again, after $moment s: other bytes"
    [ -z "$(beside "$out")" ] || fail "$name: again, after $moment s: left $(beside "$out")"
  done
}
each_command disturb
cd / && rm -rf "$work"
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "survived $kills kills"
