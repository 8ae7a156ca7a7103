#!/usr/bin/env bash
# usage: venv.sh BUILD    makes BUILD/venv, the Python environment of the tests that need ONNX Runtime.
# Versions are pinned; an existing environment with the same pins is kept.
set -euo pipefail
build=${1:?usage: venv.sh BUILD}
pins="numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 safetensors==0.8.0 tokenizers==0.23.3"
venv=$build/venv
if [ -f "$venv/pins" ] && [ "$(cat "$venv/pins")" = "$pins" ]; then
  exit 0
fi
rm -rf "$venv"
python3 -m venv "$venv"
# shellcheck disable=SC2086  # a list of requirements
"$venv/bin/pip" install --quiet --disable-pip-version-check $pins
echo "$pins" > "$venv/pins"
