#!/usr/bin/env bash
# usage: bench/bundled_tables.sh BUILD OUT [keys|budgets|curve]...
# The tables of bench/smollm2_tables.sh on the bundled model, with the repository's own texts.
set -euo pipefail
usage="usage: bundled_tables.sh BUILD OUT [keys|budgets|curve]..."
build=${1:?$usage}
out=${2:?$usage}
shift 2
root=$(dirname "$0")/..
bin=$build/bin
model=$root/examples/models/needle-llama
calib=(--calib "$root/examples/text/alice-calibration.txt")
held_back=6
profile_text=$root/examples/text/alice-calibration.txt
text=$root/examples/text/alice-evaluation.txt
haystack=$text
context=768
profile_context=896
needle_length=1000
distractors=3

. "$(dirname "$0")/quality_tables.sh"
[ $# -gt 0 ] || set -- keys budgets
tables "$@"
