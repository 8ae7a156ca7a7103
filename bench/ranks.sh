#!/usr/bin/env bash
# usage: bench/ranks.sh BUILD MODEL [TURNS [RANKS]]
# What ranks cost: kvc-profile of MODEL on the bundled text with one rank of RANKS threads (default 2)
# and RANKS ranks of one thread, in turns (default 3), and with one rank of one thread. Prints the
# median wall time and processor time of each, the efficiency (wall time of the threads / of the
# ranks) and the load before each turn, and fails where the bytes differ.
set -euo pipefail
usage="usage: ranks.sh BUILD MODEL [TURNS [RANKS]]"
build=${1:?$usage} model=${2:?$usage} turns=${3:-3} ranks=${4:-2}
root=$(cd "$(dirname "$0")/.." && pwd)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
profile=("$build/bin/kvc-profile" "$model" --calib "$root/examples/text/alice-calibration.txt"
  --context 256 --horizon 32 --windows $((4 * ranks)) --quiet)

# one NAME command...: appends "seconds processor-seconds" to NAME's list.
one() {
  local name=$1
  shift
  rm -rf "$work/out"
  TIMEFORMAT='%R %U %S'
  { time "$@" -o "$work/out" > /dev/null; } 2>> "$work/$name"
  (cd "$work/out" && cat ./*) | sha256sum >> "$work/bytes"
}
for ((turn = 0; turn < turns; ++turn)); do
  echo "load before turn $((turn + 1)): $(cut -d' ' -f1 /proc/loadavg)"
  one threads "${profile[@]}" --threads "$ranks"
  one ranks mpirun --oversubscribe --bind-to none -q -n "$ranks" "${profile[@]}" --threads 1
  one alone "${profile[@]}" --threads 1
done
[ "$(sort -u "$work/bytes" | wc -l)" = 1 ] || { echo "other bytes"; exit 1; }
python3 - "$work" "$ranks" << 'P'
import statistics, sys
work, ranks = sys.argv[1], int(sys.argv[2])
def read(name):
    rows = [[float(x) for x in line.split()] for line in open(f"{work}/{name}")]
    return statistics.median(r[0] for r in rows), statistics.median(r[1] + r[2] for r in rows)
wall = {}
for name, label in (("alone", "1 rank, 1 thread"), ("threads", f"1 rank, {ranks} threads"),
                    ("ranks", f"{ranks} ranks, 1 thread each")):
    wall[name], processor = read(name)
    print(f"{label:26} {wall[name]:8.1f} s, {processor:8.1f} s of processors")
print(f"efficiency of ranks against threads {wall['threads'] / wall['ranks']:.2f}, "
      f"speed-up {wall['alone'] / wall['ranks']:.2f}")
P
