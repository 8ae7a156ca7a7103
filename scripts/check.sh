#!/usr/bin/env bash
# usage: check.sh BUILD    every test of an existing build; ends with the test runner's closing lines.
# What wants a download (SmolLM2, ONNX Runtime) is fetched first; when that fails, its tests skip.
set -euo pipefail
build=${1:?usage: check.sh BUILD}
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/fetch_smollm2.sh" "$build" || echo "check: SmolLM2 could not be fetched; its tests skip" >&2
"$root/tests/venv.sh" "$build" || echo "check: no test environment; ONNX Runtime's tests skip" >&2
"$root/scripts/check_cuda.sh" "$build"
cd "$build"
exec ctest --output-on-failure --no-tests=error -j2
