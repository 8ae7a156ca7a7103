#!/usr/bin/env bash
# usage: venv.sh BUILD            makes BUILD/venv, the Python environment of the tests that need ONNX Runtime and OpenVINO.
#        venv.sh BUILD torch      makes BUILD/venv-torch, that of the tests that need transformers: 5 GB of disk.
# Versions are pinned; an existing environment with the same pins is kept.
set -euo pipefail
build=${1:?usage: venv.sh BUILD [torch]}
case ${2:-} in
  "") venv=$build/venv pins="numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 openvino==2026.4.1 safetensors==0.8.0 tokenizers==0.23.3" ;;
  torch) venv=$build/venv-torch pins="numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3 torch==2.15.0 transformers==5.23.0" ;;
  *) echo "venv.sh: expected torch or nothing, got $2" >&2; exit 2 ;;
esac
if [ -f "$venv/pins" ] && [ "$(cat "$venv/pins")" = "$pins" ]; then
  exit 0
fi
rm -rf "$venv"
python3 -m venv "$venv"
# shellcheck disable=SC2086  # a list of requirements
"$venv/bin/pip" install --quiet --disable-pip-version-check $pins
echo "$pins" > "$venv/pins"
