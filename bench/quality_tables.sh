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
  print_keys
  [ ! -s "$out/budgets.txt" ] || { echo && cat "$out/budgets.txt"; }
}
