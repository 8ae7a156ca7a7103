#!/usr/bin/env bash
# usage: fetch_smollm2.sh BUILD    makes BUILD/models/smollm2 (269 MB) if it is not there.
# Exit 1 when the package index cannot be reached.
set -euo pipefail
build=${1:?usage: fetch_smollm2.sh BUILD}
root=$(cd "$(dirname "$0")/.." && pwd)
target=$build/models/smollm2
[ -f "$target/tokenizer_config.json" ] && exit 0

venv=$build/venv-smollm2
echo "fetch: SmolLM2-135M-Instruct into $target" >&2
python3 -m venv "$venv"
"$venv/bin/pip" -q install gguf numpy safetensors ml_dtypes tokenizers
mkdir -p "$build/models"
rm -rf "$target.partial"
PATH="$venv/bin:$PATH" "$venv/bin/python" "$root/scripts/smollm2.py" "$target.partial" >&2
rm -rf "$target"
mv "$target.partial" "$target"
