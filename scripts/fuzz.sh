#!/usr/bin/env bash
# usage: fuzz.sh BUILD SECONDS [TARGET...]    builds the fuzz targets with clang into BUILD/fuzz and runs
# each for so long, from the seeds of tests/fuzz/seeds.txt and what earlier runs found in
# BUILD/fuzz/corpus. Prints the executions of each; a finding is kept in BUILD/fuzz and ends the script.
set -euo pipefail
build=${1:?usage: fuzz.sh BUILD SECONDS [TARGET...]}
seconds=${2:?usage: fuzz.sh BUILD SECONDS [TARGET...]}
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
fuzz=$(mkdir -p "$build/fuzz" && cd "$build/fuzz" && pwd)
command -v clang++ > /dev/null || { echo "fuzz: expected clang++, got none; apt-get install clang" >&2; exit 2; }
cmake -S "$root" -B "$fuzz" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DKVC_FUZZ=ON -DKVC_TORCH=OFF -DKVC_BENCH=OFF > "$fuzz/configure.log"
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(sed -n "s|^\([a-z_][a-z_]*\) .*|\1|p" "$root/tests/fuzz/seeds.txt")
cmake --build "$fuzz" --target "${targets[@]/#/fuzz_}"
cd "$root"
for target in "${targets[@]}"; do
  mkdir -p "$fuzz/corpus/$target" "$fuzz/seeds/$target"
  # shellcheck disable=SC2046
  n=0; for file in $(sed -n "s|^$target  *||p" tests/fuzz/seeds.txt); do cp "$file" "$fuzz/seeds/$target/$((n += 1))"; done
  if ! "$fuzz/bin/fuzz_$target" "$fuzz/corpus/$target" "$fuzz/seeds/$target" -max_total_time="$seconds" \
    -timeout=20 -rss_limit_mb=3000 -max_len=200000 -print_final_stats=1 -artifact_prefix="$fuzz/$target-" \
    > "$fuzz/$target.log" 2>&1; then
    tail -30 "$fuzz/$target.log"; echo "fuzz: $target: found a fault; see $fuzz/$target.log" >&2; exit 1
  fi
  echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$fuzz/$target.log") executions in $seconds s"
done
