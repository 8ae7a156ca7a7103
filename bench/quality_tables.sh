# Sourced by smollm2_tables.sh and bundled_tables.sh, which set
#   bin out model          commands, folder of results, checkpoint
#   calib held_back        arguments of kvc-factorize for the table of keys
#   profile_text           text that the heads are profiled on
#   text haystack          text that is judged, text that hides needles
#   context                tokens of a window before what is decoded
#   profile_context        tokens of a profile's window before its horizon
#   needle_length distractors
#   other_text other_haystack  for the part `other`
# and then call `tables PART...`.

tables_folder=$(dirname "$0")
. "$tables_folder/table_cells.sh"

scorers=(snapkv expected-attention keydiff knorm streaming output-error output-error:keydiff=0.3)

keys() {
  for rank in 50 25 12.5; do
    for objective in weight input input-query input-attention-query output; do
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

full() {
  profile
  cell export-full "$bin/kvc-export" "$model" -o "$out/full" --budget 100% --method full
}

# compare NAME OPTION...: OUT/NAME.json and NAME.txt, once; an interrupted run goes on.
compare() {
  local name=$1
  shift
  full
  [ -s "$out/$name.json" ] && return
  echo "== $name" >&2
  "$bin/kvc-eval" compare "$out/full" "$@" -o "$out/$name.json" > "$out/$name.txt"
}

# compare_thin NAME OPTION...: OUT/NAME-thin.json, the same on the thin keys of THIN (CHECKPOINT,PROFILE in
# the environment), against the full cache of full keys at equal bytes.
compare_thin() {
  local name=$1
  shift
  [ -n "${THIN:-}" ] || return 0
  cell export-thin "$bin/kvc-export" "${THIN%,*}" -o "$out/thin-full" --budget 100% --method full
  compare "$name-thin" --base "$out/thin-full" --profile "${THIN#*,}" "$@"
}

needles=(--depths 0.1,0.3,0.5,0.7,0.9 --distractors "$distractors")
ruled=(--ruler 2 --ruler-tasks single,multi-key,multi-value,multi-query,tracking)
tiers=@0,1/8,1/4,1
profiled=(--profile "$out/profile")
long_tasks=(--text "$text" --context 4k --decode 64 --samples 2 --haystack "$haystack" --lengths 4k
  --depths 0.1,0.5,0.9 --needles 1 --budget 50%,25%,12.5%,6.25%,3%)

# The protocol of kvpress's figures: the tokens behind the context are all kept, six windows; ten needles.
# bench/kvpress_table.py runs kvpress on prompts.json.
budgets() {
  local args=(--policy streaming --policy lukv/snapkv/output-error --policy lukv/output-error/output-error)
  for scorer in "${scorers[@]}"; do
    [ "$scorer" = streaming ] || args+=(--policy "uniform/$scorer" --policy "lukv/$scorer")
  done
  compare compare "${profiled[@]}" --text "$text" --context "$context" --decode 128 --samples 6 --decode-policy append \
    --haystack "$haystack" --lengths "$needle_length" "${needles[@]}" --needles 2 "${args[@]}" \
    --budget 50%,25%,12.5% --save-prompts "$out/prompts.json"
}

# Needles and RULER-style tasks down to the smallest budget, at the needles' length.
curve() {
  local args=()
  for policy in uniform/snapkv uniform/keydiff lukv/output-error:keydiff=0.3 lukv-mixed/snapkv; do
    args+=(--policy "$policy")
  done
  compare curve "${profiled[@]}" --haystack "$haystack" --lengths "$needle_length" "${needles[@]}" --needles 2 \
    "${ruled[@]}" --decode-policy append \
    "${args[@]}" --budget 25%,12.5%,6.25%,4%
}

# RULER-style tasks alone, at the needles' length.
ruler() {
  local args=()
  for policy in uniform/snapkv uniform/output-error:keydiff=0.3 headkv/snapkv "headkv/snapkv$tiers" \
    headkv/output-error:keydiff=0.3 lukv/output-error:keydiff=0.3/output-error lukv-mixed/snapkv \
    lukv-mixed/snapkv/output-error; do
    args+=(--policy "$policy")
  done
  compare ruler "${profiled[@]}" --haystack "$haystack" --lengths "$needle_length" --needles 0 \
    "${ruled[@]}" "${args[@]}" --budget 50%,25%,12.5%
}

# Every method down to 3 %, which a context of 4K tokens has room for; budgets hold while decoding.
long() {
  local args=(--policy streaming)
  for policy in uniform/snapkv "uniform/snapkv$tiers" uniform/expected-attention uniform/output-error \
    pyramid/snapkv ada/snapkv headkv/snapkv "headkv/snapkv$tiers" headkv/output-error:keydiff=0.3 lukv/snapkv \
    lukv/snapkv/output-error lukv/expected-attention lukv-mixed/snapkv lukv-mixed/snapkv/output-error \
    lukv-mixed/expected-attention; do
    args+=(--policy "$policy")
  done
  compare long "${profiled[@]}" "${long_tasks[@]}" "${args[@]}"
  compare_thin long "${long_tasks[@]}" --policy lukv-mixed/snapkv --policy lukv/output-error:keydiff=0.3
}

# The main policies on a text and a haystack that neither the profile nor another table has seen.
other() {
  local args=()
  for policy in streaming uniform/snapkv "uniform/snapkv$tiers" uniform/expected-attention headkv/snapkv \
    headkv/output-error:keydiff=0.3 lukv/snapkv lukv/snapkv/output-error lukv/output-error:keydiff=0.3 \
    lukv/expected-attention lukv-mixed/snapkv lukv-mixed/snapkv/output-error lukv-mixed/expected-attention; do
    args+=(--policy "$policy")
  done
  local tasks=(--text "$other_text" --context "$context" --decode 128 --samples 6 --haystack "$other_haystack"
    --lengths "$needle_length" "${needles[@]}" --needles 2 --budget 25%,12.5%)
  compare other "${profiled[@]}" "${tasks[@]}" "${args[@]}"
  compare_thin other "${tasks[@]}" --policy lukv/output-error:keydiff=0.3 \
    --policy lukv/output-error:keydiff=0.3/output-error
}

# The width of the pool, then the queries that look back (the window, which is kept too), on the other text.
pools() {
  local window pool args
  for window in 32 16 64; do
    args=()
    for pool in 7 11 15; do
      [ "$window" = 32 ] || [ "$pool" = 11 ] || continue
      args+=(--policy "uniform/output-error:pool=$pool" --policy "ada-model/output-error:pool=$pool")
    done
    compare "pools-$window" --window "$window" --text "$other_text" --context "$context" --decode 128 --samples 6 \
      --decode-policy append --haystack "$other_haystack" --lengths "$needle_length" "${needles[@]}" --needles 1 \
      "${args[@]}" --budget 25%,12.5%
  done
}

# Head budgets from what the model itself goes on with, beside those from the text's own tokens.
sampled() {
  local horizon
  full
  for horizon in teacher sample; do
    cell "profile-$horizon" "$bin/kvc-profile" "$model" -o "$out/profile-$horizon" --force --calib "$profile_text" \
      --scorer snapkv --scorer output-error:keydiff=0.3 --windows 8 --context "$profile_context" --tiers 0,1 \
      --continuation "$horizon"
    compare "sampled-$horizon" --profile "$out/profile-$horizon" --text "$text" --context "$context" --decode 128 \
      --samples 6 --decode-policy append --haystack "$haystack" --lengths "$needle_length" "${needles[@]}" \
      --needles 2 --policy lukv/snapkv --policy lukv/snapkv/output-error --policy lukv/output-error:keydiff=0.3 \
      --budget 25%,12.5%
  done
}

# The score that expects the prompt's queries again: by the protocol of `budgets`, with the budget held on both
# texts, on RULER-style tasks, and with fewer queries.
prompt() {
  local name=output-error:prompt=1024 args=() method queries
  full
  cell profile-prompt "$bin/kvc-profile" "$model" -o "$out/profile-prompt" --force --calib "$profile_text" \
    --scorer "$name" --windows 16 --context "$profile_context"
  for method in uniform headkv lukv; do args+=(--policy "$method/$name"); done
  args+=(--policy "lukv/$name/output-error" --policy "lukv-mixed/$name" --policy "lukv-mixed/$name/output-error")
  local windows=(--profile "$out/profile-prompt" --context "$context" --decode 128 --samples 6)
  local facts=(--lengths "$needle_length" "${needles[@]}" --needles 2)
  compare prompt "${windows[@]}" --text "$text" --decode-policy append --haystack "$haystack" "${facts[@]}" \
    "${args[@]}" --budget 50%,25%,12.5%
  compare prompt-held "${windows[@]}" --text "$text" --haystack "$haystack" "${facts[@]}" "${args[@]}" \
    --budget 50%,25%,12.5%
  compare prompt-other "${windows[@]}" --text "$other_text" --haystack "$other_haystack" "${facts[@]}" "${args[@]}" \
    --budget 25%,12.5%
  compare prompt-ruler --profile "$out/profile-prompt" --haystack "$haystack" --lengths "$needle_length" --needles 0 \
    "${ruled[@]}" "${args[@]}" --budget 25%,12.5%
  compare prompt-long --profile "$out/profile-prompt" "${long_tasks[@]}" "${args[@]}"
  args=()
  for queries in 0 64 256 512 1024; do args+=(--policy "uniform/output-error:prompt=$queries"); done
  compare prompt-queries --text "$text" --context "$context" --decode 128 --samples 6 --decode-policy append \
    --haystack "$haystack" "${facts[@]}" "${args[@]}" --budget 25%,12.5%
}

# What kvc-export chooses; PROFILE in the environment: whose scorers are tried.
auto() {
  full
  for budget in 50 25 12.5; do
    cell "auto-$budget" "$bin/kvc-export" "$model" -o "$out/best" --force --budget "$budget%" --method auto \
      --profile "${PROFILE:-$out/profile}" ${THIN:+--candidate "$THIN"} --text "$text" --haystack "$haystack"
  done
  rm -rf "$out/best"
}

print_keys() {
  keys_header "layout, objective"
  for rank in 50 25 12.5; do
    for name in output input-attention-query input-query input weight heads; do
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
  for name in compare long long-thin other other-thin prompt prompt-{held,other,long,queries} pools-{16,32,64} sampled-{teacher,sample} auto-{50,25,12.5}; do
    [ ! -s "$out/$name.json" ] || { echo "== $name" && "$tables_folder/compare_table.py" "$out/$name.json"; }
  done
  for name in long prompt-long; do
    [ ! -s "$out/$name.json" ] || { echo "== $name, cost" && "$tables_folder/compare_table.py" "$out/$name.json" --cell cost; }
  done
  for name in curve ruler prompt-ruler; do
    [ ! -s "$out/$name.json" ] || { echo "== $name" && "$tables_folder/compare_table.py" "$out/$name.json" --cell needles; }
  done
}
