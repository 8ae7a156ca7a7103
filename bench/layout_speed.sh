#!/usr/bin/env bash
# usage: bench/layout_speed.sh BUILD OUT [LAYOUT]...
# Tokens per second of each key layout of SmolLM2-135M (make smollm2) at 1K, 4K and 8K tokens in the
# cache, nothing dropped; keys at 25 %. Layouts: full latent:1 latent:heads post-rope rope-pairs. What is
# measured does not depend on the weights' values, so keys are factored in the quickest way. One JSON
# file for each layout lands in OUT; a layout that is there is not measured again. Prints Markdown.
# DEPTHS, DECODE (tokens of a run) and REPETITIONS in the environment change what is run; many short runs
# find a quiet moment on a machine that others use.
set -euo pipefail
build=${1:?usage: layout_speed.sh BUILD OUT [LAYOUT]...}
out=${2:?OUT}
shift 2
layouts=${*:-full latent:1 latent:heads post-rope rope-pairs}
bin=$build/bin
model=$build/models/smollm2
text=$(dirname "$0")/../examples/text/alice-calibration.txt
mkdir -p "$out"

. "$(dirname "$0")/table_cells.sh"

# bundle LAYOUT: a bundle that keeps every token, in $out/bundle.
bundle() {
  local source=$out/thin calibration=()
  case $1 in
    full) source=$model ;;
    post-rope | rope-pairs) calibration=(--objective logit --calib "$text" --calib-tokens 2k) ;;
    *) calibration=(--objective weight) ;;
  esac
  if [ "$1" != full ]; then
    "$bin/kvc-factorize" "$model" -o "$source" --force --rank 25% --layout "$1" "${calibration[@]}" --quiet > /dev/null
  fi
  "$bin/kvc-export" "$source" -o "$out/bundle" --force --budget 100% --method full --no-verify --quiet > /dev/null
}

for layout in $layouts; do
  [ -s "$out/speed-$layout.json" ] && continue
  bundle "$layout"
  cell "speed-$layout" "$bin/kvc-bench" "$out/bundle" --prompt 512 --decode "${DECODE:-4}" --text "$text" \
    --depths "${DEPTHS:-1k,4k,8k}" --repetitions "${REPETITIONS:-24}"
done
rm -rf "$out/thin" "$out/bundle"

python3 - "$out" $layouts << 'PYTHON'
import json, sys

out, layouts = sys.argv[1], sys.argv[2:]
cells = {name: json.load(open(f"{out}/speed-{name}.json")) for name in layouts}
full = cells.get("full")
depths = [depth["depth"] for depth in cells[layouts[0]]["depths"]]
print("decode tokens/s, best run (share of the full cache's); cache bytes")
print("| keys | prefill 512 | " + " | ".join(f"{depth} tokens" for depth in depths) + " | cache |")
print("|---" * (len(depths) + 3) + "|")
for name in layouts:
    row = [name, f"{cells[name]['prompt']['tokens_per_second']['best']:.0f}"]
    for i, depth in enumerate(cells[name]["depths"]):
        rate = depth["decode_tokens_per_second"]["best"]
        share = f" ({100 * rate / full['depths'][i]['decode_tokens_per_second']['best']:.0f} %)" if full else ""
        row.append(f"{rate:.1f}{share}")
    row.append(f"{cells[name]['cache']['allocated_bytes'] / 2**20:.1f} MiB")
    print("| " + " | ".join(row) + " |")
PYTHON
