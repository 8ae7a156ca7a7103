#!/usr/bin/env bash
# usage: ranks.sh BIN SOURCE WORK [KILLS]
# Commands as ranks of mpirun: the same bytes for 1, 2, 3 and 4 ranks (what only varies a command: 3
# ranks, all of them where KILLS is above 3); ranks killed at KILLS random moments (default 3), and the
# run taken up with other numbers of ranks; one message and its exit code for what is wrong on one
# rank or on all.
set -uo pipefail
bin=$1 source=$2 work=$3 kills=${4:-3}
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
case "$("$bin/kvc" --version)" in *"MPI none"*) echo "skipped: built without MPI"; exit 77 ;; esac
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
. "$source/tests/cli/command_table.sh"
make_inputs
# Containers run as root, and have fewer processors than ranks.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
RANDOM=7
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
launch() { timeout 600 mpirun --oversubscribe -q -n "$@"; }
messages() { grep -c "^kvc[-a-z]*: error: " "$1"; }
clean() { rm -rf out out.* .out*; }

counts="0 1 2 3 4"  # ranks to try; 0: no launcher
# same NAME OUT command...: OUT - is stdout. The first run is nobody's rank.
same() {
  local name=$1 out=$2 ranks want="" got
  shift 2
  for ranks in $counts; do
    clean
    if [ $ranks = 0 ]; then "$@" > stdout 2> stderr; else launch $ranks "$@" > stdout 2> stderr; fi
    [ $? -eq 0 ] || { fail "$name: $ranks ranks: $(cat stderr)"; return; }
    if [ "$out" = - ]; then got=$(timeless stdout | sha256sum); else got=$(digest "$out"); fi
    [ -z "$want" ] || [ "$got" = "$want" ] || fail "$name: other bytes with $ranks ranks"
    want=${want:-$got}
    [ ! -e out.partial ] || fail "$name: $ranks ranks left out.partial"
  done
}
# The commands of the table that share their work; the others refuse to be several.
each() {
  case $1 in
    factorize-* | profile | logits | train | compare) same "$@" ;;
    *)
      clean
      launch 2 "${@:3}" > stdout 2> stderr
      [ $? -eq 2 ] && [ "$(messages stderr)" = 1 ] && [ ! -e "$2" ] || fail "$1: expected a refusal: $(cat stderr)"
      ;;
  esac
}
each_command each
"$bin/kvc-export" model -o half --method uniform --budget 50% --no-verify --quiet > /dev/null || fail "no bundle"
for name in red-cat old-dog wet-fox; do
  printf '{"random_idx": ["%s", 1], "expected_number": 31, "prompt": "Remember.\\nline my-hat: REGISTER_CONTENT is <7>\\nline %s: REGISTER_CONTENT is <31>\\nWhat is in line %s? "}\n' \
    $name $name $name >> lines.jsonl
  printf '{"input": "Whose %s?", "context": "This %s is of Alice.", "answers": ["Alice"], "dataset": "hotpotqa"}\n' $name $name >> longbench.jsonl
done
walk=(--text t.txt --context 128 --decode 16 --samples 5 --batch 2 --json --quiet)
same ppl - "$bin/kvc-eval" ppl half "${walk[@]}"
same ruler - "$bin/kvc-eval" ruler half --haystack t.txt --lengths 256 --samples 3 --batch 2 --tasks single,tracking --json --quiet
auto=("$bin/kvc-export" model --method auto --budget 50% --policy streaming --policy uniform/snapkv --text t.txt --context 128
  --decode 8 --samples 5 --haystack t.txt --needles 1 --threads 1 --quiet)
if [ -x "$bin/kvc-factorize" ]; then
  "$bin/kvc-factorize" model -o thin --objective weight --rank 50% --quiet > /dev/null || fail "no thin model"
  auto+=(--candidate thin)
fi
same auto out "${auto[@]}" -o out
grep -q '"chosen"' out/manifest.json || fail "auto: expected the table of what was tried in the manifest"
[ "$kills" -gt 3 ] || counts="0 3"
same kld - "$bin/kvc-eval" kld half --against full "${walk[@]}"
same needle - "$bin/kvc-eval" needle half --haystack t.txt --lengths 256 --samples 2 --json --quiet
same lines - "$bin/kvc-eval" lines half --file lines.jsonl --batch 2 --json --quiet
same longbench - "$bin/kvc-eval" longbench half longbench.jsonl --batch 1 --json --quiet
same compare-all out.json "$bin/kvc-eval" compare full --policy uniform/snapkv --budget 50% --text t.txt --context 128 --decode 8 \
  --samples 25 --haystack t.txt --lengths 256 --needles 1 --ruler 2 --ruler-tasks single -o out.json --quiet
profile=("$bin/kvc-profile" model --calib t.txt --context 128 --horizon 16 --threads 1 --quiet)
same profile-sampled out "${profile[@]}" -o out --windows 2 --continuation sample --question "Who is it?"
same profile-needles out "${profile[@]}" -o out --windows 5 --importance needle --needle-tests 5 --scorer knorm

# on_rank RANK COMMAND: a script that runs COMMAND on that rank before the command.
on_rank() {
  printf '#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" != %s ] || %s\nexec "$@"\n' "$1" "$2" > on_rank.sh
  chmod +x on_rank.sh
}
# on_other_disk RANK COMMANDS: likewise, with mounts that only this rank sees.
on_other_disk() {
  cat > on_rank.sh << S
#!/bin/sh
[ "\$OMPI_COMM_WORLD_RANK" != $1 ] || exec unshare -m sh -c "$2; exec \"\\\$@\"" sh "\$@"
exec "\$@"
S
  chmod +x on_rank.sh
}

# --- Killed ------------------------------------------------------------------------------------

profile+=(--windows 7)
clean
start=$(date +%s%N)
launch 3 "${profile[@]}" -o out > /dev/null 2> stderr || fail "undisturbed: $(cat stderr)"
want=$(digest out) seconds=$(($(date +%s%N) - start))
for ((i = 0; i < kills; ++i)); do
  clean
  victim=$((RANDOM % 3)) moment=$(awk -v s="$seconds" -v r="$RANDOM" 'BEGIN { printf "%.2f", s * 1e-9 * (0.05 + r / 32768) }')
  on_rank $victim "{ (sleep $moment; kill -KILL \$\$) > /dev/null 2>&1 & }"
  launch 3 ./on_rank.sh "${profile[@]}" -o out > stdout 2> stderr
  [ "$(messages stderr)" = 0 ] || fail "rank $victim killed after $moment s: another rank speaks: $(cat stderr)"
  [ ! -e out ] || [ "$(digest out)" = "$want" ] || fail "rank $victim killed after $moment s: half of an output"
  ranks=$((1 + RANDOM % 4))
  [ -e out ] || launch $ranks "${profile[@]}" -o out > stdout 2> stderr || fail "again with $ranks ranks: $(cat stderr)"
  [ "$(digest out)" = "$want" ] || fail "rank $victim killed after $moment s, again with $ranks ranks: other bytes"
  [ ! -e out.partial ] || fail "rank $victim killed after $moment s: left out.partial"
done

# --- Wrong on one rank, or on all --------------------------------------------------------------

# expect CODE TEXT command...
expect() {
  local want=$1 text=$2 got
  shift 2
  clean
  "$@" > stdout 2> stderr
  got=$?
  [ $got -eq "$want" ] || fail "$text: expected exit $want, got $got: $(cat stderr)"
  [ "$(messages stderr)" = 1 ] || fail "$text: expected one message: $(cat stderr)"
  grep -q -- "$text" stderr || fail "expected \"$text\", got $(cat stderr)"
  [ ! -e out ] || fail "$text: wrote out"
}
here=$(hostname)
expect 2 "rank 1 on $here: argument .*: expected .* as on rank 0" \
  timeout 600 mpirun --oversubscribe -q -n 1 "${profile[@]}" -o out : -n 1 "${profile[@]}" -o out --sinks 2
mkdir -p elsewhere && cp -r model elsewhere/model && head -c 50000 t.txt > elsewhere/t.txt
on_rank 2 "cd elsewhere"
expect 2 "rank 2 on $here: calibration" launch 3 ./on_rank.sh "${profile[@]}" -o "$work/out"
# One byte of the weights.
cp -r elsewhere other && cp t.txt other && printf '{' |
  dd of=other/model/model.safetensors bs=1 seek=$(($(stat -c %s model/model.safetensors) - 3)) conv=notrunc status=none
[ ! -d thin ] || cp -r thin other
on_rank 1 "cd other"
expect 2 "error: rank 1 on $here: model: expected .* as on rank 0" launch 3 ./on_rank.sh "${auto[@]}" -o "$work/out"
expect 2 "rank 1 on $here: model_sha256: expected" launch 3 ./on_rank.sh "${profile[@]}" -o "$work/out"
expect 6 "rank [0-3] on $here: nowhere" launch 4 "$bin/kvc-profile" nowhere -o out --calib t.txt --quiet
expect 2 "rank [01] on $here: .*--no-such" launch 2 "${profile[@]}" -o out --no-such
expect 2 "expected one process" launch 2 "$bin/kvc" report results -o out
# Machines whose disks differ: a rank that sees another one, and one that may not write.
if unshare -m true 2> /dev/null; then
  mkdir -p disk
  on_other_disk 2 "mount -t tmpfs none '$work/disk'"
  expect 6 "rank 2 on $here: .*disk/out.partial: expected the folder that rank 0 has made" \
    launch 3 ./on_rank.sh "${profile[@]}" -o disk/out
  on_other_disk 1 "mount --bind '$work/disk' '$work/disk' && mount -o remount,ro,bind '$work/disk'"
  expect 6 "rank 1 on $here: .*disk/out.partial.*ead-only" launch 3 ./on_rank.sh "${profile[@]}" -o disk/out
  [ ! -d thin ] || expect 6 "rank 1 on $here: .*disk/.*ead-only" launch 2 ./on_rank.sh "${auto[@]}" -o disk/out
  launch 2 "${profile[@]}" -o disk/out > stdout 2> stderr || fail "disk: $(cat stderr)"
  [ "$(digest disk/out)" = "$want" ] || fail "disk: other bytes"
fi
# What people run to look: once, and no error.
launch 3 "$bin/kvc-profile" --help > stdout 2> stderr || fail "--help: $(cat stderr)"
[ "$(grep -c "^Usage" stdout)" = 1 ] || fail "--help: expected one text"

cd / && rm -rf "$work"
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "the same bytes for 1, 2, 3 and 4 ranks"
