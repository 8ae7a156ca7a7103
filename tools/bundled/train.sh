#!/usr/bin/env bash
# Makes examples/models/needle-llama again: text, tokenizer, training (about an hour on one core).
#
# usage: tools/bundled/train.sh BIN BOOKS OUT
#   BIN    folder with kvc-train (build/bin)
#   BOOKS  folder with these files of NLTK's Gutenberg selection: bryant-stories.txt,
#          burgess-busterbrown.txt, chesterton-brown.txt, austen-emma.txt
#   OUT    the trained model; words, texts and tokenizer go to OUT.work
# A run that was stopped goes on from its last checkpoint.
set -euo pipefail
bin=${1:?usage: train.sh BIN BOOKS OUT} books=${2:?usage: train.sh BIN BOOKS OUT} out=${3:?usage: train.sh BIN BOOKS OUT}
here=$(cd "$(dirname "$0")" && pwd)
work=$out.work

mkdir -p "$work/text"
texts=() options=()
for book in bryant-stories burgess-busterbrown chesterton-brown austen-emma; do
  python3 "$here/make_text.py" -o "$work/text/$book.txt" "$books/$book.txt"
  texts+=("$work/text/$book.txt")
  options+=(--text "$work/text/$book.txt")
done
"$bin/kvc-train" --list-words > "$work/words.txt"
python3 "$here/make_tokenizer.py" -o "$work/tokenizer" --words "$work/words.txt" --size 1024 "${texts[@]}"
"$bin/kvc-train" "$here/../../examples/models/needle-llama/config.json" -o "$out" \
  --tokenizer "$work/tokenizer" "${options[@]}" --task needle --length 1024 --batch 4 --steps 4000 \
  --lr 2e-3 --seed 1 --log-every 50 --checkpoint-every 100
