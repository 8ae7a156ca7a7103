#!/usr/bin/env bash
# usage: shape_bundle.sh BIN CONFIG.json OUT LAYERS CONTEXT
# Makes a bundle of random bf16 weights in the shape of CONFIG.json (bench/shapes) with LAYERS layers
# and a context of CONTEXT tokens: full cache; kvc-bench --budget sets others. BIN has make_shape and
# kvc-export. The checkpoint that it goes through lies beside OUT and is removed: a Mistral-7B shape
# of 32 layers takes 14.5 GB, and twice that for a while. OUT on a memory disk (/dev/shm) is quickest.
set -euo pipefail
bin=${1:?usage: shape_bundle.sh BIN CONFIG OUT LAYERS CONTEXT} config=${2:?CONFIG} out=${3:?OUT}
layers=${4:?LAYERS} context=${5:?CONTEXT}
work=$out.checkpoint
trap 'rm -rf "$work" "$work.json"' EXIT
rm -rf "$work" "$out"
sed -E 's/("max_position_embeddings": *)[0-9]+/\1'"$context/" "$config" > "$work.json"
"$bin/make_shape" "$work.json" "$work" "$layers"
"$bin/kvc-export" "$work" -o "$out" --method full --budget 100% --no-verify --quiet > /dev/null
