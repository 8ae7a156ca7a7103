#!/bin/bash
# Runs tests/core/mpi_program.cc with mpirun: 1 to 4 ranks agree, and a rank that fails ends all of
# them with one message and its exit code. Usage: mpi.sh PROGRAM
set -u
program=$1
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
# Containers run as root, and have fewer processors than ranks.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bad=0
fail() { echo "failed: $*"; cat "$out/stdout" "$out/stderr"; bad=1; }
# start RANKS ARGUMENTS...: its exit code in $code
start() {
  local ranks=$1
  shift
  timeout 120 mpirun --oversubscribe -n "$ranks" "$program" "$@" > "$out/stdout" 2> "$out/stderr"
  code=$?
}
for ranks in 1 2 3 4; do
  start $ranks
  [ $code = 0 ] && [ "$(cat "$out/stdout")" = "ok $ranks" ] || fail "$ranks ranks: exit $code"
done
for rank in 0 1 3; do
  start 4 throw $rank
  [ $code = 3 ] || fail "rank $rank throws: exit $code, expected 3"
  [ "$(grep -c "^mpi_program: error: rank $rank on $(hostname): weights: NaN$" "$out/stderr")" = 1 ] ||
    fail "rank $rank throws: expected one message of it"
done
start 4 all
[ $code = 3 ] || fail "all throw: exit $code, expected 3"
[ "$(grep -c "mpi_program: error: rank" "$out/stderr")" = 1 ] || fail "all throw: expected one message"
for rank in 0 2; do
  start 4 kill $rank
  [ $code = 137 ] || fail "rank $rank is killed: exit $code, expected 137"
  # The launcher says it, with the rank and its host.
  grep -q "rank $rank .*on node $(hostname) exited on signal 9" "$out/stderr" ||
    fail "rank $rank is killed: expected the launcher's message"
  grep -q "mpi_program: error" "$out/stderr" && fail "rank $rank is killed: another rank speaks"
done
[ $bad = 0 ] && echo "ranks over MPI: passed"
exit $bad
