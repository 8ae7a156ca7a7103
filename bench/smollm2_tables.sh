#!/usr/bin/env bash
# usage: bench/smollm2_tables.sh BUILD TEXT_DIR OUT [PART]...
# PART: keys, budgets, curve, ruler, long, other, prompt, pools, sampled or auto; default: the first three.
# The tables of docs/experiments/ on quality, measured on SmolLM2-135M (make smollm2). TEXT_DIR holds
# wikitext2-valid.txt, chesterton-brown.txt, austen-emma.txt, bryant-stories.txt and
# melville-moby_dick.txt. One JSON file for each cell lands in OUT; a cell that is there is not
# measured again. Prints Markdown.
set -euo pipefail
usage="usage: smollm2_tables.sh BUILD TEXT_DIR OUT [PART]..."
build=${1:?$usage}
texts=${2:?$usage}
out=${3:?$usage}
shift 3
bin=$build/bin
model=$build/models/smollm2
calib=(--calib "$texts/wikitext2-valid.txt" --calib "$texts/chesterton-brown.txt")
held_back=12
profile_text=$out/wiki-first.txt
text=$out/wiki-second.txt
haystack=$texts/austen-emma.txt
other_text=$texts/bryant-stories.txt
other_haystack=$texts/melville-moby_dick.txt
context=768
profile_context=1024
needle_length=1k
distractors=0

. "$(dirname "$0")/quality_tables.sh"

# Profiled on the first half of WikiText-2's lines, judged on the second.
mkdir -p "$out"
lines=$(wc -l < "$texts/wikitext2-valid.txt")
head -n $((lines / 2)) "$texts/wikitext2-valid.txt" > "$profile_text"
tail -n +$((lines / 2 + 1)) "$texts/wikitext2-valid.txt" > "$text"
[ $# -gt 0 ] || set -- keys budgets curve
tables "$@"
