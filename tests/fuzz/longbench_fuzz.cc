// A file of LongBench's lines.

#include "eval/tasks/longbench.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/word_tokenizer.h"

KVC_FUZZ_TARGET(longbench) {
  const kvc::testing::WordTokenizer tokenizer;
  (void)kvc::eval::PlanLongBench(tokenizer, kvc::fuzz::WrittenFile("lines.jsonl", bytes), {});
}
