#!/usr/bin/env bash
# usage: demo.sh bundled|smollm2 BUILD
# The whole pipeline: a head profile, a bundle at 25 % of the cache's bytes (tokens in few bits, each head
# what it needs: all defaults), text, and the bundle measured against the full one; beside it thin keys
# at 25 %, with every token kept. Everything lands in BUILD/demo-NAME.
set -euo pipefail
name=${1:?usage: demo.sh bundled|smollm2 BUILD}
build=${2:?usage: demo.sh bundled|smollm2 BUILD}
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$build/bin
work=$build/demo-$name
text=$root/examples/text

case $name in
  bundled)
    model=$root/examples/models/needle-llama
    calibration=$text/alice-calibration.txt held_back=$text/alice-evaluation.txt
    calib_tokens=16k windows=16 context=768
    eval_context=768 eval_decode=128 eval_samples=8
    lengths=256,512,1000 samples=8 distractors=3
    prompt="Alice was beginning to get very tired of" ;;
  smollm2)
    model=$build/models/smollm2
    calibration=$text/alice-calibration.txt held_back=$text/alice-evaluation.txt
    calib_tokens=16k windows=8 context=1024
    eval_context=1024 eval_decode=128 eval_samples=8
    lengths=512,1k,2k samples=4 distractors=0
    prompt="The three most important inventions of the nineteenth century were" ;;
  *) echo "demo: error: model: expected bundled or smollm2, got $name" >&2; exit 2 ;;
esac

rm -rf "$work"
mkdir -p "$work/results"
result() { cat > "$work/results/$1.json"; }
step() { echo "== $*" >&2; "$@"; }

step "$bin/kvc-factorize" "$model" -o "$work/thin" --rank 25% --layout latent:1 --spread \
  --calib "$calibration" --calib-tokens "$calib_tokens" --json | result factorize
step "$bin/kvc-profile" "$model" -o "$work/profile" --calib "$calibration" \
  --windows "$windows" --context "$context" --json | result profile
step "$bin/kvc-export" "$model" -o "$work/full" --budget 100% --method full --json | result export-full
step "$bin/kvc-export" "$work/thin" -o "$work/thin-full" --budget 100% --method full --json | result export-thin
step "$bin/kvc-export" "$model" -o "$work/compressed" --budget 25% --profile "$work/profile" --json | result export-compressed
step "$bin/kvc-run" "$work/compressed" --prompt "$prompt" -n 48
for bundle in compressed thin-full; do
  step "$bin/kvc-eval" kld "$work/$bundle" --against "$work/full" --text "$held_back" \
    --context "$eval_context" --decode "$eval_decode" --samples "$eval_samples" --json | result "kld-${bundle%-full}"
done
for bundle in full compressed; do
  step "$bin/kvc-eval" needle "$work/$bundle" --haystack "$held_back" --lengths "$lengths" \
    --samples "$samples" --distractors "$distractors" --json | result "needle-$bundle"
done

echo
"$bin/kvc" report "$work/results"
