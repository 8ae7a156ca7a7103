#!/usr/bin/env bash
# usage: run_python.sh BUILD[:torch] SCRIPT ARGUMENTS...    runs a test in an environment of tests/venv.sh.
# Exit code 77 (skipped) when that environment has not been made.
set -euo pipefail
build=${1%:torch}
kind=${1#"$build"}
kind=${kind#:}
shift
python=$build/venv${kind:+-$kind}/bin/python
if [ ! -x "$python" ]; then
  echo "SKIPPED: expected $python, got none; run tests/venv.sh $build $kind"
  exit 77
fi
exec "$python" "$@"
