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

# True while a process of the group runs. A killed process holds its locks until it has ended, and
# one that nobody has waited for yet (state Z) holds none.
group_runs() {
  awk -v group="$1" '{ sub(/.*\) /, "") } $3 == group && $1 != "Z" { found = 1 } END { exit !found }' \
    /proc/[0-9]*/stat 2> /dev/null
}

# kill_at SECONDS command...: runs it in a process group of its own, which is killed then.
kill_at() {
  local moment=$1 group got
  shift
  set -m
  "$@" > stdout 2> stderr &
  group=$!
  set +m
  { sleep "$moment"; kill -KILL -- "-$group"; } 2> /dev/null
  wait "$group" 2> /dev/null
  got=$?
  while group_runs "$group"; do sleep 0.01; done
  return "$got"
}

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
    kill_at "$moment" "$@"
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
