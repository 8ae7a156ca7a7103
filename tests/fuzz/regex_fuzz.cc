// A regular expression of Oniguruma, translated, compiled and run.

#include "core/tokenizer/regex.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(regex) {
  const kvc::tokenizer::Regex regex(bytes, "regex");
  const kvc::tokenizer::RegexScanner scanner(regex);
  scanner.ForEachMatch("Hello, w\u00f6rld 12\n\n  x\u0301 aaaa", [](kvc::tokenizer::ByteRange) {});
}
