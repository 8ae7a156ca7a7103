# Sourced by smollm2_tables.sh and bundled_tables.sh, which set
#   bin out model          commands, folder of results, checkpoint
#   calib held_back        arguments of kvc-factorize for the table of keys
#   profile_text           text that the heads are profiled on
#   text haystack          text that is judged, text that hides needles
#   context                tokens of a window before what is decoded
#   profile_context        tokens of a profile's window before its horizon
#   needle_length distractors
# and then call `tables PART...`.

. "$(dirname "$0")/table_cells.sh"

scorers=(snapkv expected-attention keydiff knorm streaming output-error output-error:keydiff=0.3)

keys() {
  for rank in 50 25 12.5; do
    for objective in weight input input-query input-attention-query; do
      cell "keys-$objective-$rank" "$bin/kvc-factorize" "$model" -o "$out/thin" --force --rank "$rank%" \
        --layout latent:1 --objective "$objective" "${calib[@]}" --held-back "$held_back"
    done
    cell "keys-heads-$rank" "$bin/kvc-factorize" "$model" -o "$out/thin" --force --rank "$rank%" \
      --layout latent:heads --objective input-query "${calib[@]}" --held-back "$held_back"
  done
  rm -rf "$out/thin"
}

profile() {
  [ -d "$out/profile" ] && return
  local args=()
  for scorer in "${scorers[@]}"; do args+=(--scorer "$scorer"); done
  cell profile "$bin/kvc-profile" "$model" -o "$out/profile" --calib "$profile_text" "${args[@]}" \
    --windows 16 --context "$profile_context"
}

# The protocol of kvpress's figures: the tokens behind the context are all kept, six windows; ten needles.
# bench/kvpress_table.py runs kvpress on prompts.json.
budgets() {
  profile
  cell export-full "$bin/kvc-export" "$model" -o "$out/full" --budget 100% --method full
  local args=(--policy streaming --policy lukv/snapkv/output-error --policy lukv/output-error/output-error)
  for scorer in "${scorers[@]}"; do
    [ "$scorer" = streaming ] || args+=(--policy "uniform/$scorer" --policy "lukv/$scorer")
  done
  [ -s "$out/budgets.txt" ] && return
  echo "== budgets" >&2
  "$bin/kvc-eval" compare "$out/full" --profile "$out/profile" --text "$text" \
    --context "$context" --decode 128 --samples 6 --decode-policy append --haystack "$haystack" \
    --lengths "$needle_length" --depths 0.1,0.3,0.5,0.7,0.9 --needles 2 --distractors "$distractors" "${args[@]}" \
    --budget 50%,25%,12.5% --save-prompts "$out/prompts.json" -o "$out/compare.json" > "$out/budgets.txt.partial"
  mv "$out/budgets.txt.partial" "$out/budgets.txt"
}

# Needles and RULER-style tasks down to the smallest budget, at the needles' length.
curve() {
  profile
  cell export-full "$bin/kvc-export" "$model" -o "$out/full" --budget 100% --method full
  local args=()
  for scorer in snapkv keydiff output-error:keydiff=0.3; do
    args+=(--policy "uniform/$scorer" --policy "lukv/$scorer")
  done
  cell curve "$bin/kvc-eval" compare "$out/full" --profile "$out/profile" --haystack "$haystack" \
    --lengths "$needle_length" --depths 0.1,0.3,0.5,0.7,0.9 --needles 2 --distractors "$distractors" \
    --ruler 2 --ruler-tasks single,multi-key,multi-value,multi-query,tracking --decode-policy append \
    "${args[@]}" --budget 50%,25%,12.5%,6.25%,4%,3% -o "$out/curve-state.json"
}

# Needles found by budget, RULER-style mean in brackets; the smallest share that still finds nine tenths
# of what the full cache finds.
print_curve() {
  python3 - "$out/curve.json" << 'PYTHON'
import json, sys

result = json.load(open(sys.argv[1]))
full, lines = result["lines"][0], result["lines"][1:]
names = list(dict.fromkeys(line["name"] for line in lines + result["impossible"]))
budgets = list(dict.fromkeys(line["budget"] for line in lines + result["impossible"]))
cells = {(line["name"], line["budget"]): line for line in lines}
print(f"full cache: {full['needles_found']}/{result['needles']} needles, ruler {100 * full['ruler_score']:.0f} %\n")
print("| policy | " + " | ".join(budgets) + " | smallest with 9/10 of the needles |")
print("|---" * (len(budgets) + 2) + "|")
for name in names:
    row, least = [], "-"
    for budget in budgets:
        line = cells.get((name, budget))
        row.append(f"{line['needles_found']}/{result['needles']} ({100 * line['ruler_score']:.0f} %)" if line else "impossible")
        if line and line["needles_found"] >= 0.9 * full["needles_found"]:
            least = budget
    print(f"| `{name}` | " + " | ".join(row) + f" | {least} |")
PYTHON
}

print_keys() {
  keys_header "layout, objective"
  for rank in 50 25 12.5; do
    for name in input-attention-query input-query input weight heads; do
      local label="latent:1, $name"
      [ "$name" = heads ] && label="latent:heads, input-query"
      keys_row "keys-$name-$rank" "$rank" "$label"
    done
  done
}

tables() {
  mkdir -p "$out"
  for part in "$@"; do "$part" >&2; done
  ! compgen -G "$out/keys-*.json" > /dev/null || print_keys
  [ ! -s "$out/budgets.txt" ] || { echo && cat "$out/budgets.txt"; }
  [ ! -s "$out/curve.json" ] || { echo && print_curve; }
}
