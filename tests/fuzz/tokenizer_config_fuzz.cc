// tokenizer_config.json beside a small tokenizer.

#include "core/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(tokenizer_config) {
  kvc::fuzz::WrittenFile("tokenizer.json", R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1,
      "ab": 2}, "merges": ["a b"]}})");
  kvc::fuzz::WrittenFile("tokenizer_config.json", bytes);
  const auto tokenizer = kvc::Tokenizer::Load(kvc::fuzz::Directory());
  (void)tokenizer->Decode(tokenizer->Encode("ab<m> a", kvc::SpecialTokens::kAdd));
}
