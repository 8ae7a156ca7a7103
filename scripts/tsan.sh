#!/usr/bin/env bash
# usage: tsan.sh BUILD
# Builds what threads share with ThreadSanitizer into BUILD/tsan, and runs it: the tests of the public
# interface and of the thread pool, the C program, and the programs of docs/guide on a bundle that BUILD's
# kvc-export makes. A race ends the script. OpenBLAS and oneDNN are as Debian built them: what they do among
# their own threads is not looked at.
set -euo pipefail
build=$(cd "${1:?usage: tsan.sh BUILD}" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
programs=(api_c guide_generate guide_share_a_prompt guide_continue_a_conversation guide_measure_memory)
cd "$root"
mkdir -p "$build/tsan"
cmake --preset tsan -B "$build/tsan" -DKVC_UNITY=ON -DKVC_BENCH=OFF > "$build/tsan/configure.log"
cmake --build "$build/tsan" --parallel "$(nproc)" --target thread_tests "${programs[@]}" > "$build/tsan/build.log" \
  || { tail -n 30 "$build/tsan/build.log" >&2; exit 1; }
# Its shadow memory wants addresses that are not drawn at random.
run=(setarch "$(uname -m)" -R env TSAN_OPTIONS=halt_on_error=1)
"${run[@]}" "$build/tsan/tests/thread_tests"
"$build/bin/kvc-export" examples/models/needle-llama -o "$build/tsan/bundle" --budget 50% --method uniform \
  --scorer snapkv --force --quiet > /dev/null
for program in "${programs[@]}"; do
  echo "$program"
  "${run[@]}" "$build/tsan/tests/$program" "$build/tsan/bundle" > "$build/tsan/$program.out" \
    || { tail -n 20 "$build/tsan/$program.out"; exit 1; }
done
echo "tsan: no race"
