#!/usr/bin/env bash
# usage: compare_bytes.sh BASE_BIN NEW_BIN [MODEL]    default: the bundled model
# Runs the commands of two builds side by side and compares every byte that they write: thin
# checkpoints, profiles, bundles, logits, tables, and what they print, as JSON, as text and as error,
# with the exit code. Only what is a clock or a memory gauge is masked. Names each difference; exit
# code 1 when there is one.
# Environment: KVC_BUDGET     the budget of the bundles (25%); 128KiB@768 where builds differ in
#                             what 100 % is
#              KVC_WORK       a folder to work in and to keep; default: a temporary one, kept when
#                             something differs
#              KVC_EXTRA=0    leaves out the further methods, --method auto and comparisons
#              KVC_THREADS    (2)
set -euo pipefail
usage="usage: compare_bytes.sh BASE_BIN NEW_BIN [MODEL]"
root=$(cd "$(dirname "$0")/.." && pwd)
base=$(cd "${1:?$usage}" && pwd)
new=$(cd "${2:?$usage}" && pwd)
model=$(cd "${3:-$root/examples/models/needle-llama}" && pwd)
budget=${KVC_BUDGET:-25%}
threads=${KVC_THREADS:-2}
work=${KVC_WORK:-$(mktemp -d "${TMPDIR:-/tmp}/compare_bytes.XXXXXX")}
fit=$root/examples/text/alice-calibration.txt
held=$root/examples/text/alice-evaluation.txt
scorer=output-error:keydiff=0.3
differences=0
compared=0

# The two sides work in folders of one name, so that the paths which they record agree.
rm -rf "$work/base" "$work/new"
mkdir -p "$work/base/out" "$work/new/out"
cat > "$work/mask.py" <<'PYTHON'
"""Masks the values of clocks and gauges in what a command printed; keys and order stay."""
import json, re, sys
CLOCK = re.compile(r"seconds|per_second|peak_rss_bytes|of_read_bandwidth")
def mask(value, clock=False):
    if isinstance(value, dict):
        return {k: mask(v, clock or bool(CLOCK.search(k))) for k, v in value.items()}
    if isinstance(value, list):
        return [mask(v, clock) for v in value]
    return "clock" if clock and value is not None else value
text = sys.stdin.read()
try:
    print(json.dumps(mask(json.loads(text)), indent=1))
except ValueError:
    if "--numbers" in sys.argv:  # a table of speeds
        text = re.sub(r" +", " ", re.sub(r"[0-9]+(\.[0-9]+)?", "N", text))
    text = re.sub(r"[0-9.]+( (tokens|GB)/s)", r"N\1", text)
    text = re.sub(r"(\[?)[0-9.]+( ?(s|ms|min)\b)", r"\1N\2", text)
    sys.stdout.write(text)
PYTHON

# both NAME COMMAND ARGUMENTS...: runs it on either side; stdout, stderr and exit code go to
# out/NAME.*. `speeds` in front masks all numbers of a text.
both() {
  local numbers="" name command side bin rc
  if [[ $1 == speeds ]]; then numbers=--numbers; shift; fi
  name=$1 command=$2
  shift 2
  echo "== $name" >&2
  for side in base new; do
    bin=$base
    if [[ $side == new ]]; then bin=$new; fi
    rc=0
    (cd "$work/$side" && "$bin/$command" "$@" --threads "$threads" --quiet) \
      > "$work/stdout" 2> "$work/stderr" || rc=$?
    python3 "$work/mask.py" $numbers < "$work/stdout" > "$work/$side/out/$name.stdout"
    python3 "$work/mask.py" < "$work/stderr" > "$work/$side/out/$name.stderr"
    echo "$rc" > "$work/$side/out/$name.exit"
  done
  for side in stdout stderr exit; do same "out/$name.$side"; done
}

# same PATH: that file, or every file below that folder.
same() {
  local files file
  files=$( (cd "$work/base" && find "$1" -type f; cd "$work/new" && find "$1" -type f) 2> "$work/find" \
    | sort -u) || true
  if [[ -z $files ]]; then
    differ "$1: neither build has written it"
    return
  fi
  while IFS= read -r file; do
    compared=$((compared + 1))
    if [[ ! -e $work/base/$file ]]; then differ "$file: only the new build has written it"
    elif [[ ! -e $work/new/$file ]]; then differ "$file: only the base build has written it"
    elif ! cmp -s "$work/base/$file" "$work/new/$file" && ! same_but_clocks "$file"; then
      differ "$file: $(cmp "$work/base/$file" "$work/new/$file" 2>&1 | sed 's/.* differ: //' || true)"
    fi
  done <<< "$files"
}
# The table of --method auto, which the manifest keeps, has processor times in it.
same_but_clocks() {
  [[ $1 == *.json ]] && cmp -s <(python3 "$work/mask.py" < "$work/base/$1") \
    <(python3 "$work/mask.py" < "$work/new/$1")
}
differ() {
  echo "differs: $*"
  differences=$((differences + 1))
}

# bundle NAME ARGUMENTS...: exports and compares; `once` removes it again, as bundles are large.
bundle() {
  local name=$1
  shift
  both "export-$name" kvc-export "$@" -o "bundle-$name" --dtype f32 --json
  same "bundle-$name"
}
once() {
  bundle "$@"
  rm -rf "$work/base/bundle-$1" "$work/new/bundle-$1"
}

# The stages before the bundle. What follows uses the base build's checkpoint and profile on both
# sides: a difference shows in the stage that makes it.
both factorize-weight kvc-factorize "$model" -o thin-weight --rank 25% --layout latent:1 \
  --objective weight --json
same thin-weight
both factorize-calibrated kvc-factorize "$model" -o thin --rank 25% --layout latent:1 --spread \
  --calib "$fit" --calib-tokens 4k --json
same thin
both factorize-plan kvc-factorize "$model" -o plan --rank 25% --calib "$fit" --dry-run
rm -rf "$work"/{base,new}/thin-weight "$work/new/thin"
ln -s ../base/thin "$work/new/thin"
both profile kvc-profile thin -o profile --calib "$fit" --scorer snapkv --scorer "$scorer" \
  --windows 2 --context 512 --json
both profile-full kvc-profile "$model" -o profile-full --calib "$fit" --scorer "$scorer" \
  --windows 2 --context 512 --json
for name in profile profile-full; do
  same $name
  rm -rf "$work/new/$name"
  ln -s "../base/$name" "$work/new/$name"
done

bundle full "$model" --budget 100% --method full
once uniform "$model" --budget "$budget" --method uniform
bundle lukv thin --budget "$budget" --method lukv --scorer "$scorer" --profile profile
both verify kvc-export --verify bundle-lukv --json
both verify-text kvc-export --verify bundle-lukv
both export-dry-run kvc-export thin -o nothing --budget "$budget" --profile profile \
  --scorer "$scorer" --dtype f32 --dry-run
both export-refused kvc-export thin -o nothing --budget 1tok --dtype f32 --json
both export-no-profile kvc-export "$model" -o nothing --budget 25% --method lukv --dtype f32

walk=(--text "$held" --context 512 --decode 32 --samples 3)
for form in --json ""; do
  both "ppl$form" kvc-eval ppl bundle-lukv "${walk[@]}" --max-ppl 1000 ${form:+"$form"}
  both "kld$form" kvc-eval kld bundle-lukv --against bundle-full "${walk[@]}" --max-kld 1e-9 \
    --max-ppl-increase 900% ${form:+"$form"}
  both "needle$form" kvc-eval needle bundle-lukv --haystack "$held" --lengths 256,512 --samples 1 \
    --distractors 2 --min-needle 0.01 ${form:+"$form"}
done
both tokenize kvc-eval tokenize "$model" --text "$held"
for side in base new; do
  cut -d ' ' -f 1-100 "$work/base/out/tokenize.stdout" > "$work/$side/ids.txt"
  cut -d ' ' -f 7-23 "$work/base/out/tokenize.stdout" >> "$work/$side/ids.txt"
done
both logits kvc-eval logits bundle-lukv --ids ids.txt -o logits.npy --json
same logits.npy
same logits.1.npy
both run kvc-run bundle-lukv --prompt "Alice was beginning to get very tired of" -n 16 --json
both run-budget kvc-run bundle-full --prompt-file ids.txt -n 8 --temperature 0.8 --top-k 20 \
  --budget 50%
both bench kvc-bench bundle-lukv --prompt 64 --decode 8 --depths 0,256 --repetitions 1 --json
both speeds bench-text kvc-bench bundle-lukv --prompt 64 --decode 8 --depths 0,256 --repetitions 1
both bench-attention kvc-bench attention --shape heads=9,kv=3,width=64,tokens=1k,dtype=f32 \
  --repetitions 3 --json

if [[ ${KVC_EXTRA:-1} != 0 ]]; then
  once streaming "$model" --budget "$budget" --method streaming
  once pyramid "$model" --budget "$budget" --method pyramid
  once ada "$model" --budget "$budget" --method ada --scorer knorm
  once headkv thin --budget "$budget" --method headkv --profile profile --scorer "$scorer"
  once tiers thin --budget "$budget" --method uniform --tiers 0,1/8,1/4,1 --profile profile
  once mixed thin --budget "$budget" --method lukv-mixed --profile profile --loss output-error
  once prompt-basis "$model" --budget "$budget" --method uniform --tiers 0,1/4,1 --basis prompt
  once auto "$model" --budget "$budget" --method auto --profile profile-full \
    --candidate thin,profile --text "$held" --haystack "$held" --context 512 --decode 16 --samples 3 --needles 1
  both auto-text kvc-export "$model" -o auto-text --budget "$budget" --method auto --text "$held" \
    --context 256 --decode 8 --samples 1 --policy uniform/snapkv --policy streaming --dtype f32
  compare=(kvc-eval compare bundle-full --bundle bundle-lukv --base bundle-full --base bundle-lukv
    --policy uniform/snapkv --policy "lukv/$scorer/output-error" --budget "$budget"
    --policy uniform@0,1/4,1 --profile profile --profile profile-full "${walk[@]}"
    --haystack "$held" --needles 1 --lengths 256 --depths 0.2,0.8 --ruler 1 --ruler-tasks single,tracking)
  both compare "${compare[@]}" --min-needle 0.01 --max-kld 10 -o compare.json \
    --save-prompts prompts.json --json
  same prompts.json
  both compare-text "${compare[@]}" --max-ppl-increase 1% --min-score 0.5
  both compare-dry-run "${compare[@]}" --dry-run
  both ruler kvc-eval ruler bundle-lukv --haystack "$held" --lengths 256 --samples 1 \
    --tasks single,multi-key --min-score 0.01 --json
  both ruler-text kvc-eval ruler bundle-lukv --haystack "$held" --lengths 256 --samples 1 \
    --tasks single
fi

echo "compared $compared files: $differences differ"
if ((differences > 0)); then
  echo "what was written is in $work"
  exit 1
fi
if [[ -z ${KVC_WORK:-} ]]; then rm -rf "$work"; fi
