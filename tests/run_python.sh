#!/usr/bin/env bash
# usage: run_python.sh BUILD SCRIPT ARGUMENTS...    runs a test in the environment of tests/venv.sh.
# Exit code 77 (skipped) when that environment has not been made.
set -euo pipefail
build=$1
shift
python=$build/venv/bin/python
if [ ! -x "$python" ]; then
  echo "SKIPPED: expected $python, got none; run tests/venv.sh $build"
  exit 77
fi
exec "$python" "$@"
