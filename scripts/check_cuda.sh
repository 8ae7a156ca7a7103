#!/usr/bin/env bash
# usage: check_cuda.sh BUILD
# Compiles the CUDA sources (-DKVC_CUDA=ON) into BUILD/cuda where there is nvcc, and runs their test,
# which is listed as skipped without a device. Nothing else is built there.
set -euo pipefail
build=${1:?usage: check_cuda.sh BUILD}
root=$(cd "$(dirname "$0")/.." && pwd)
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
if [ ! -x "$nvcc" ]; then
  echo "check: no nvcc; the CUDA sources are not compiled" >&2
  exit 0
fi
generator=()
[ -e "$build/cuda/CMakeCache.txt" ] || generator=(-G Ninja)
CUDACXX=$nvcc cmake -S "$root" -B "$build/cuda" "${generator[@]}" -DKVC_CUDA=ON -DKVC_BENCH=OFF > "$build/cuda.log" 2>&1 ||
  { cat "$build/cuda.log" >&2; exit 1; }
cmake --build "$build/cuda" --parallel 2 --target linalg_tests cuda_device_tests >> "$build/cuda.log" 2>&1 ||
  { cat "$build/cuda.log" >&2; exit 1; }
ctest --test-dir "$build/cuda" -R '^(linalg_svd_test|cuda_device_)' --no-tests=error --output-on-failure
