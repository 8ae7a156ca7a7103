#!/usr/bin/env bash
# usage: measure.sh BIN SOURCE WORK
# What measures bundles: speed, tasks, comparisons with gates; keys that scripts build on, and exit codes.
set -euo pipefail
bin=$1 source=$2 work=$3
model=$source/examples/models/needle-llama
text=$source/examples/text/alice-evaluation.txt
rm -rf "$work" && mkdir -p "$work"
. "$source/tests/cli/checks.sh"

"$bin/kvc-export" "$model" -o "$work/full" --budget 100% --method full --no-verify --quiet > /dev/null
"$bin/kvc-export" "$model" -o "$work/quarter" --budget 25% --no-verify --quiet > /dev/null

# kvc-bench
"$bin/kvc-bench" "$work/quarter" --prompt 64 --decode 8 --depths 0,256 --repetitions 2 --text "$text" --quiet --json > "$work/bench.json"
has "$work/bench.json" kvc command seconds peak_rss_bytes device prompt depths prefill_tokens_per_second \
  decode_tokens_per_second cache full_bytes allocated_bytes peak_bytes read_gb_per_second attention_gb_per_second
"$bin/kvc-bench" attention --shape heads=4,kv=2,width=32,tokens=512 --shape heads=4,kv=2,width=32,latent=16,tokens=512 \
  --repetitions 3 --quiet --json > "$work/attention.json"
has "$work/attention.json" shapes gb_per_second of_read_bandwidth microseconds
"$bin/kvc-bench" "$work/full" --prompt 16 --decode 4 --depths 64 --repetitions 1 --batch 3 --budget 50% --quiet --json > "$work/batch.json"
grep -q '"batch": 3' "$work/batch.json" && grep -q '"method": "uniform"' "$work/batch.json" || fail "kvc-bench --batch --budget"
ragged=heads=4,kv=2,width=32,tokens=256
expect 2 "batch" "$bin/kvc-bench" attention --shape $ragged,batch=2
expect 0 "attention GB/s" "$bin/kvc-bench" "$work/full" --prompt 16 --decode 4 --depths 64 --repetitions 1
expect 0 "allocated_bytes" "$bin/kvc-bench" "$work/full" --dry-run --depths 512
expect 2 "context of 1024" "$bin/kvc-bench" "$work/full" --depths 4k
expect 2 "multiple of kv" "$bin/kvc-bench" attention --shape heads=4,kv=3
expect 2 "BUNDLE" "$bin/kvc-bench"

# kvc-eval ruler, lines, longbench
"$bin/kvc-eval" ruler "$work/quarter" --haystack "$text" --lengths 512 --samples 1 --quiet --json > "$work/ruler.json"
has "$work/ruler.json" score cells task length stderr samples question cache
for task in single multi-key multi-value multi-query tracking common-words frequent-words; do
  grep -q "\"$task\"" "$work/ruler.json" || fail "ruler: expected $task"
done
expect 2 "multi-key" "$bin/kvc-eval" ruler "$work/quarter" --haystack "$text" --tasks summaries
expect 2 "1024 tokens" "$bin/kvc-eval" ruler "$work/quarter" --haystack "$text" --lengths 2k --tasks single
for name in amber-fox blue-hat green-owl; do
  printf '{"random_idx": ["%s", 1], "expected_number": 31, "prompt": "Remember.\\n\\nline red-cat: REGISTER_CONTENT is <7>\\nline %s: REGISTER_CONTENT is <31>\\n\\nWhat is in line %s? "}\n' \
    "$name" "$name" "$name"
done > "$work/lines.jsonl"
"$bin/kvc-eval" lines "$work/quarter" --file "$work/lines.jsonl" --lines 1,2 --quiet --json > "$work/lines.json"
[ "$(grep -c '"samples": 3' "$work/lines.json")" = 2 ] || fail "lines: expected two cells of three"
cat > "$work/longbench.jsonl" << 'JSONL'
{"dataset": "hotpotqa", "input": "Who sleeps?", "context": "The cat sleeps. The dog runs.", "answers": ["the cat"]}
{"dataset": "trec", "input": "Question: Where is Rome? Type:", "context": "Question: Who am I? Type: Human", "answers": ["Place"], "all_classes": ["Human", "Place"]}
{"dataset": "gov_report", "input": "", "context": "A long report about trade.", "answers": ["A report about trade."]}
{"dataset": "lcc", "input": "", "context": "x = 1\ny = 2\n", "answers": ["z = 3"]}
{"dataset": "passage_count", "input": "", "context": "Paragraph 1: a. Paragraph 2: b.", "answers": ["2"]}
JSONL
"$bin/kvc-eval" longbench "$work/quarter" "$work/longbench.jsonl" --max-length 700 --quiet --json > "$work/longbench.json"
for task in hotpotqa trec gov_report lcc passage_count; do
  grep -q "\"$task\"" "$work/longbench.json" || fail "longbench: expected $task"
done
printf '{"dataset": "vcsum", "input": "", "context": "c", "answers": ["a"]}\n' > "$work/chinese.jsonl"
expect 3 "vcsum" "$bin/kvc-eval" longbench "$work/quarter" "$work/chinese.jsonl"
printf 'Read {input}\n' > "$work/template.txt"
expect 2 "{context}" "$bin/kvc-eval" longbench "$work/quarter" "$work/longbench.jsonl" --template "$work/template.txt"

# Gates
walk=(--text "$text" --context 256 --decode 16 --samples 2 --quiet)
expect 5 "max-ppl-increase FAILED" "$bin/kvc-eval" kld "$work/quarter" --against "$work/full" "${walk[@]}" --max-ppl-increase=-50%
expect 0 "max-ppl-increase passed" "$bin/kvc-eval" kld "$work/quarter" --against "$work/full" "${walk[@]}" --max-ppl-increase 200% --max-kld 5
expect 2 "max-ppl-increase" "$bin/kvc-eval" kld "$work/quarter" --against "$work/full" "${walk[@]}" --max-ppl-increase little
expect 5 "max-ppl FAILED" "$bin/kvc-eval" ppl "$work/quarter" "${walk[@]}" --max-ppl 1
needle=("$bin/kvc-eval" needle "$work/full" --haystack "$text" --lengths 512 --depths 0.5 --samples 1 --quiet)
expect 0 "min-needle passed" "${needle[@]}" --min-needle 0.99
expect 5 "min-needle FAILED" "${needle[@]}" --min-needle 1.01
expect 5 '"gate": "failed"' "${needle[@]}" --min-needle 1.01 --json

# compare: ruler beside the rest, an impossible budget named, gates on every line, going on behind an interruption
compare=("$bin/kvc-eval" compare "$work/full" --policy uniform/snapkv --budget 50%,3% "${walk[@]}" --haystack "$text"
  --lengths 512 --depths 0.5 --needles 1 --ruler 1 --ruler-tasks single,tracking)
expect 0 "impossible: --budget 3%" "${compare[@]}"
grep -q "ruler" "$work/both" || fail "compare: expected a column for ruler"
expect 5 "FAILED" "${compare[@]}" --max-kld 1e-9 -o "$work/compare.json"
# What could not run, or was not measured, misses every limit.
expect 5 "max-kld FAILED: limit 100 (uniform/snapkv 3%), not measured: --budget 3%" "${compare[@]}" --max-kld 100
expect 5 "min-needle FAILED: .*not measured" "$bin/kvc-eval" compare "$work/full" --policy uniform/snapkv --budget 50% \
  "${walk[@]}" --min-needle 0
has "$work/compare.json" ruler_score ruler_cells kld_stderr same_top_stderr impossible gates choosing_seconds token_seconds
if command -v python3 > /dev/null; then
  python3 "$source/bench/compare_table.py" "$work/compare.json" --cell cost > "$work/cost.md"
  grep -q '^| `uniform/snapkv` | \(49\.9\|50\.0\).*%, .* s, .* ms |' "$work/cost.md" || fail "compare_table.py: $(cat "$work/cost.md")"
fi
expect 4 "impossible\|at least" "$bin/kvc-eval" compare "$work/full" --policy uniform/snapkv --budget 3% "${walk[@]}"
rm -rf "$work"
echo "measured"
