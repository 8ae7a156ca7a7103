#!/usr/bin/env bash
# usage: emulator_bench.sh BIN SOURCE WORK
# kvc-bench on the emulator, in a build that has it: keys that scripts build on, and exit codes.
set -euo pipefail
bin=$1 source=$2 work=$3
model=$source/examples/models/needle-llama
rm -rf "$work" && mkdir -p "$work"
. "$source/tests/cli/checks.sh"

"$bin/kvc-export" "$model" -o "$work/full" --budget 100% --method full --no-verify --quiet > /dev/null
ragged=heads=4,kv=2,width=32,tokens=256
"$bin/kvc-bench" "$work/full" --device emulator --prompt 16 --decode 2 --depths 0 --repetitions 1 --quiet --json > "$work/emulator.json"
grep -q '"device": "emulator"' "$work/emulator.json" || fail "kvc-bench: expected the device's name"
has "$work/emulator.json" peak_device_bytes
"$bin/kvc-bench" compress --device emulator --shape heads=4,kv=2,width=32,tokens=256,budget=25%,dtype=bf16 --repetitions 2 \
  --quiet --json > "$work/compress.json"
has "$work/compress.json" kept_bytes read_bytes share_kept microseconds_with_lists of_copy largest_error
expect 7 "emulator" "$bin/kvc-bench" compress --shape tokens=16
"$bin/kvc-bench" attention --device emulator --shape $ragged,dtype=bf16,batch=2,budget=50%,skew=1.5,tiers=1/4+1 \
  --repetitions 3 --quiet --json > "$work/device.json"
has "$work/device.json" device_name emulated copy_gb_per_second flushed_bytes shapes reader p10 p90 of_copy largest_error
expect 0 "emulated" "$bin/kvc-bench" attention --device emulator --shape $ragged --repetitions 1
expect 7 "KVC_CUDA" "$bin/kvc-bench" attention --device cuda --shape $ragged
expect 0 "emulated" "$bin/kvc-bench" "$work/full" --device emulator --prompt 16 --decode 2 --depths 0 --repetitions 1
expect 7 "--device" "$bin/kvc-bench" "$work/full" --prompt 16 --decode 2 --depths 0 --device cuda
rm -rf "$work"
echo "kvc-bench runs on the emulator"
