#!/usr/bin/env bash
# usage: peers.sh [BUILD [ROUNDS [THREADS]]]
# kvc beside llama.cpp, OpenVINO GenAI and ONNX Runtime on SmolLM2-135M, in turns. Fetches the others
# from PyPI into BUILD/peers (1.5 GB), makes their files and ours from the same checkpoint, runs all,
# prints one table. Nothing else should run on the machine meanwhile. llama.cpp's wheel is compiled for
# AVX2: a build of one's own is faster on newer processors.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$root/build}
rounds=${2:-5}
threads=${3:-2}
bin=$build/bin
model=$build/models/smollm2
peers=$build/peers
python=$peers/venv/bin/python

[ -x "$bin/kvc-export" ] || { echo "peers: error: $bin: expected the commands; run make build first" >&2; exit 6; }
[ -d "$model" ] || { echo "peers: error: $model: expected SmolLM2; run make smollm2 first" >&2; exit 6; }
mkdir -p "$peers"
if [ ! -x "$python" ]; then
  python3 -m venv "$peers/venv"
  "$python" -m pip install -q "xllamacpp>=2026.10" "openvino-genai==2026.4.*" "onnxruntime==1.32.*" "gguf>=0.19"
fi
cp "$model/config.json" "$peers/config.json"
[ -f "$peers/model.gguf" ] || "$python" "$root/bench/peers/gguf_of.py" "$model" "$peers/model.gguf"
[ -f "$peers/model-f16.gguf" ] || "$python" "$root/bench/peers/gguf_of.py" "$model" "$peers/model-f16.gguf" --type f16
export_bundle() {  # NAME ARGUMENT...
  local out=$peers/$1
  shift
  [ -d "$out" ] || "$bin/kvc-export" "$model" -o "$out" --quiet --no-verify "$@" >/dev/null
}
export_bundle full.kvc --method full --budget 100%
export_bundle f32.kvc --method full --budget 100% --dtype f32
export_bundle quarter.kvc --method pyramid --budget 25%
export_bundle sixteenth.kvc --method pyramid --budget 6.25%
"$python" "$root/bench/peers/table.py" "$bin" "$peers" --rounds "$rounds" --threads "$threads" --json "$peers/last.json"
