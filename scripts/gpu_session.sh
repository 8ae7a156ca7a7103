#!/usr/bin/env bash
# usage: gpu_session.sh pack DIR    build for a device and pack what a machine with one needs (nvcc; no device)
#        gpu_session.sh bundles DIR the pack's bundles alone, by the commands in KVC_BIN: the bundled model,
#                                   with thin keys (latents), and with rows in few bits
#        gpu_session.sh run DIR     there: tests, comparisons, tables, into $OUT (default DIR/out)
# A pack is DIR/session.tar.xz, at most 60 MiB, and DIR/gpu_session.sh, which unpacks it beside itself.
# The machine needs tar, xz, its driver and libcublasLt (on LD_LIBRARY_PATH or with the system). Run takes at most eight minutes: each step has a limit of its
# own; one that fails or runs over it is named in summary.txt, and the next one begins. What steps
# print is in log.txt, the tables' JSON in tables.jsonl, one a line.
# In the environment:
#   BUILD           pack: the build folder (build/gpu)
#   KVC_DEVICE      run: cuda, or emulator, which goes through everything in tiny sizes
#   KVC_BIN         run: where the commands are (DIR/bin); KVC_TESTS: likewise the tests (DIR/tests)
#   MODEL_LAYERS    run: layers of the Mistral-7B shape (32); MODEL_SCRATCH: where it is made
#                   (/dev/shm, 29 GB)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
mode=${1:?usage: gpu_session.sh pack|bundles|run DIR}
mkdir -p "${2:?usage: gpu_session.sh pack|bundles|run DIR}"
dir=$(cd "$2" && pwd)

commands=(kvc-run kvc-eval kvc-bench kvc-export make_shape)
makers=(kvc-factorize kvc-profile) # of bundles; they stay here
tests=(cuda_device_tests runtime_device_tests bench_device_tests)

build_for_device() {
  local build=$1 nvcc
  nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
  [ -x "$nvcc" ] || { echo "gpu_session: expected nvcc, got none" >&2; exit 1; }
  # sm_80 and sm_90, and PTX of the latter for what comes after.
  CUDACXX=$nvcc cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DKVC_CUDA=ON \
    -DKVC_TORCH=OFF -DKVC_PCH=OFF "-DCMAKE_CUDA_ARCHITECTURES=80-real;90" > "$build.log" 2>&1 ||
    { cat "$build.log" >&2; exit 1; }
  cmake --build "$build" --parallel "${JOBS:-2}" --target "${commands[@]}" "${makers[@]}" "${tests[@]}" >> "$build.log" 2>&1 ||
    { tail -50 "$build.log" >&2; exit 1; }
}

# make_bundles BIN DIR: what a session compares, from the bundled model. Thin keys that nobody tuned have
# best tokens so close together that they need f32.
make_bundles() {
  local bin=$1 dir=$2 model=$root/examples/models/needle-llama made
  made=$(mktemp -d)
  "$bin/kvc-export" "$model" -o "$dir/bundle" --method full --budget 100% --no-verify --quiet > /dev/null
  "$bin/kvc-factorize" "$model" -o "$made/thin" --rank 25% --layout latent:1 --objective weight --quiet > /dev/null
  "$bin/kvc-export" "$made/thin" -o "$dir/thin" --method full --budget 100% --dtype f32 --no-verify --quiet > /dev/null
  "$bin/kvc-profile" "$model" -o "$made/profile" --calib "$root/examples/text/alice-calibration.txt" --windows 2 \
    --context 192 --horizon 32 --window 8 --scorer output-error:reduce=mean,pool=1 --tiers 0,1x8,1x2,x3,x1.5 --quiet > /dev/null
  "$bin/kvc-export" "$model" -o "$dir/bits" --budget 25% --method uniform --window 8 --scorer output-error:reduce=mean,pool=1 \
    --tiers 0,1x8,1x2,x3,x1.5 --profile "$made/profile" --dtype f32 --no-verify --quiet > /dev/null
  rm -r "$made"
}

# The libraries of a program that a bare machine may lack: all but the C library and its loader.
libraries_of() {
  ldd "$@" | awk '$3 ~ /^\// { print $3 }' | sort -u |
    grep -v -E '/(libc|libm|libdl|libpthread|librt|ld-linux[^/]*)\.so'
}

pack() {
  local build=${BUILD:-$root/build/gpu} target=$dir file library
  mkdir -p "$build"
  build_for_device "$build"
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  mkdir -p "$dir"/{bin,tests,lib,lib-cxx,source/tests/golden,source/bench/shapes,source/scripts}
  for file in "${commands[@]}"; do cp "$build/bin/$file" "$dir/bin/"; done
  for file in "${tests[@]}"; do cp "$build/tests/$file" "$dir/tests/"; done
  strip "$dir"/bin/* "$dir"/tests/*
  for library in $(libraries_of "$dir"/bin/* "$dir"/tests/*); do cp -L "$library" "$dir/lib/"; done
  # Protobuf and fmt are shared, so libstdc++ is, too; a machine that has one as new uses its own.
  mv "$dir"/lib/libstdc++.so* "$dir"/lib/libgcc_s.so* "$dir/lib-cxx/"
  strip --strip-unneeded "$dir"/lib/* 2> /dev/null || true
  cp -r "$root/tests/golden/models" "$dir/source/tests/golden/"
  cp "$root/bench/shapes/mistral-7b.json" "$dir/source/bench/shapes/"
  cp "$root/scripts/gpu_session.sh" "$root/scripts/shape_bundle.sh" "$dir/source/scripts/"
  cp "$root/bench/attention_in_torch.py" "$dir/source/bench/"
  make_bundles "$build/bin" "$dir"
  # Every program has the same kernels inside: a dictionary as large as all of them keeps one copy.
  tar -C "$dir" -c . | xz -T1 -6 --lzma2=preset=6,dict=192MiB > "$target/session.tar.xz.partial"
  mv "$target/session.tar.xz.partial" "$target/session.tar.xz"
  cp "$root/scripts/gpu_session.sh" "$target/"
  local kib
  kib=$(du -k "$target/session.tar.xz" | cut -f 1)
  echo "packed $((kib / 1024)) MiB in $target"
  [ "$kib" -le $((60 * 1024)) ] || { echo "gpu_session: expected at most 60 MiB, got $((kib / 1024))" >&2; exit 1; }
}

failures=0
# step SECONDS NAME command...: its output goes to log.txt, its fate and time to summary.txt.
step() {
  local limit=$1 name=$2 code=0 start left
  shift 2
  start=$(date +%s)
  left=$((deadline - start))
  [ "$limit" -le "$left" ] || limit=$left
  if [ "$limit" -lt 2 ]; then
    fate="NOT RUN: no time left"
    : > "$work/output"
    : > "$work/errors"
  else
    timeout --kill-after=5 "$limit" "$@" > "$work/output" 2> "$work/errors" || code=$?
    case $code in
      0) fate=passed ;;
      77) fate=skipped ;;
      124 | 137) fate="OVER ITS LIMIT of $limit s" ;;
      *) fate="FAILED with code $code: $(tail -1 "$work/errors")" ;;
    esac
  fi
  [[ $fate == passed || $fate == skipped ]] || failures=$((failures + 1))
  echo "$name: $fate, $(($(date +%s) - start)) s" | tee -a "$out/summary.txt"
  { echo "== $name: $*"; cat "$work/output" "$work/errors"; } >> "$out/log.txt" 2> /dev/null
}

# table SECONDS NAME kvc-bench arguments...: its JSON is a line of tables.jsonl as well.
table() {
  local limit=$1 name=$2
  shift 2
  step "$limit" "$name" "$bin/kvc-bench" "$@" --device "$device" --quiet --json
  [ "$fate" != passed ] || echo "{\"name\": \"$name\", \"result\": $(tr -d '\n' < "$work/output")}" >> "$out/tables.jsonl"
}

# The tokens that bundles write on the device are the processor's: in full, at a quarter, with thin
# keys, and with rows in few bits.
same_tokens() {
  local bundle budget name tokens=24
  [ "$device" = cuda ] || tokens=4
  while read -r bundle budget; do
    for name in cpu "$device"; do
      "$bin/kvc-run" "$dir/$bundle" --device "$name" --budget "$budget" --prompt "Alice was beginning to get very tired of" \
        --new-tokens "$tokens" --quiet < /dev/null > "$work/tokens-$name.txt"
    done
    if [ "$(text_of cpu)" = "$(text_of "$device")" ]; then
      echo "$bundle at $budget: the same"
    else
      echo "$bundle at $budget: DIFFERENT"
      diff "$work/tokens-cpu.txt" "$work/tokens-$device.txt"
      return 1
    fi
  done < <(printf '%s\n' "bundle 100%" "bundle 25%" "thin 100%" "bits 25%")
}
# The text without what it took to write it.
text_of() { sed -E '/tokens\/s|seconds|memory|peak|GB\/s/d' "$work/tokens-$1.txt"; }

run() {
  if [ -e "$dir/session.tar.xz" ] && [ ! -d "$dir/bin" ]; then
    tar -C "$dir" -xJf "$dir/session.tar.xz"
    root=$dir/source
  fi
  out=${OUT:-$dir/out} device=${KVC_DEVICE:-cuda} bin=${KVC_BIN:-$dir/bin}
  local programs=${KVC_TESTS:-$dir/tests} shapes="$root/bench/shapes/mistral-7b.json" test
  mkdir -p "$out"
  rm -f "$out"/{summary.txt,log.txt,tables.jsonl}
  work=$(mktemp -d)
  trap 'rm -rf "$work" "${model:-$work}"' EXIT
  deadline=$(($(date +%s) + ${SECONDS_LIMIT:-470}))
  [ ! -d "$dir/lib" ] || export LD_LIBRARY_PATH=$dir/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  "$bin/kvc-run" --version > /dev/null 2>&1 || export LD_LIBRARY_PATH=$dir/lib-cxx:${LD_LIBRARY_PATH:-}
  export KVC_TEST_SOURCE=$root
  { date; uname -a; nvidia-smi || echo "no nvidia-smi"; } > "$out/log.txt" 2>&1

  if [ "$device" = cuda ]; then
    for test in "${tests[@]}"; do step 90 "$test" "$programs/$test"; done
    if command -v compute-sanitizer > /dev/null; then
      step 60 sanitizer compute-sanitizer --error-exitcode 9 "$programs/bench_device_tests"
    else
      echo "sanitizer: not on this machine" | tee -a "$out/summary.txt"
    fi
  elif [ -x "$programs/bench_device_tests" ]; then
    step 60 bench_device_tests "$programs/bench_device_tests"
  fi
  export -f same_tokens text_of
  export bin dir work device
  step 60 same_tokens bash -c same_tokens
  tables "$shapes"
  echo "$failures of the steps failed" | tee -a "$out/summary.txt"
  [ "$failures" = 0 ]
}

# attention_shapes TOKENS... -- BATCHES...: uniform and skewed heads, tiers, thin keys, latents.
attention_shapes() {
  local tokens batch kind=()
  for tokens in $1; do
    for batch in $2; do
      for kind in "" ,skew=4 ,tiers=1/8+1/4+1/2+1 ,key=32 ,latent=64 ,budget=25% ,budget=6.25%; do
        echo --shape "$3tokens=$tokens,batch=$batch,dtype=bf16$kind"
      done
    done
  done
}

tables() {
  local shapes=$1 small="heads=8,kv=4,width=64," length batch budget
  if [ "$device" = emulator ]; then
    # shellcheck disable=SC2046
    table 60 attention attention $(attention_shapes 128 "1 2" "$small" | sed s/skew=4/skew=2/) --repetitions 2
    table 30 compress compress --shape "${small}tokens=256,budget=25%,dtype=bf16" \
      --shape "${small}tokens=256,budget=25%,dtype=bf16,tiers=1/8+1/4+1" --repetitions 2
    table 60 bundle "$dir/bundle" --prompt 16 --decode 2 --depths 0,64 --repetitions 1
    table 60 bundle-25 "$dir/bundle" --prompt 16 --decode 2 --depths 64 --repetitions 1 --budget 25% --batch 2
    table 60 thin "$dir/thin" --prompt 16 --decode 2 --depths 64 --repetitions 1
    table 60 bits "$dir/bits" --prompt 16 --decode 2 --depths 64 --repetitions 1 --budget 25%
    return
  fi
  # Shapes that do not fit end the command that has them, so lengths and batches go one by one.
  for batch in 1 8 32; do
    for length in 8k 32k 128k; do
      # shellcheck disable=SC2046
      table 30 "attention-$length-b$batch" attention $(attention_shapes "$length" "$batch" "") \
        --repetitions 50 --checked-heads 2
    done
  done
  table 20 attention-formats attention --repetitions 50 --checked-heads 2 --shape tokens=32k,dtype=f16 \
    --shape tokens=32k,dtype=f32 --shape tokens=32k,dtype=int8 --shape tokens=32k,batch=8,dtype=int8 \
    --shape tokens=32k,batch=8,dtype=x8 --shape tokens=32k,batch=8,dtype=x4 --shape tokens=32k,batch=8,dtype=x2 \
    --shape tokens=32k,batch=8,dtype=avg3
  # The same attention by PyTorch's scaled_dot_product_attention; skipped where there is none with CUDA.
  step 60 attention-in-torch bash -c 'command -v python3 > /dev/null || exit 77; exec python3 "$0"' \
    "$root/bench/attention_in_torch.py"
  for length in 4k 32k 128k; do
    table 20 "compress-$length" compress --repetitions 20 --shape "tokens=$length,budget=25%,dtype=bf16" \
      --shape "tokens=$length,budget=6.25%,dtype=bf16" --shape "tokens=$length,budget=25%,dtype=bf16,tiers=1/8+1/4+1" \
      --shape "tokens=$length,budget=25%,skew=4,dtype=bf16"
  done
  # Small models: what a step costs beside its bytes.
  table 10 bundle "$dir/bundle" --prompt 128 --decode 32 --depths 0,512 --repetitions 5
  table 10 thin "$dir/thin" --prompt 128 --decode 32 --depths 0,512 --repetitions 5
  table 10 bits "$dir/bits" --prompt 128 --decode 32 --depths 512 --repetitions 5 --budget 25%
  model=${MODEL_SCRATCH:-/dev/shm}/kvc-shape-$$
  step 150 make-model "$root/scripts/shape_bundle.sh" "$bin" "$shapes" "$model" "${MODEL_LAYERS:-32}" 131072
  for length in 32k 128k; do
    for budget in 100% 25% 6.25%; do
      table 60 "model-$length-${budget%\%}" "$model" --prompt 512 --decode 32 --depths "$length" --repetitions 2 --budget "$budget"
    done
    table 60 "model-$length-6.25-b8" "$model" --prompt 512 --decode 32 --depths "$length" --repetitions 2 --budget 6.25% --batch 8
  done
}

case $mode in
  pack) pack ;;
  bundles) make_bundles "${KVC_BIN:?expected the folder of the commands}" "$dir" ;;
  run) run ;;
  *) echo "usage: gpu_session.sh pack|bundles|run DIR" >&2; exit 2 ;;
esac
