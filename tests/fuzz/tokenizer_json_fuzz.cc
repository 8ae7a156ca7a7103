// tokenizer.json: reads it, then encodes and decodes a text.

#include "core/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(tokenizer_json) {
  kvc::fuzz::WrittenFile("tokenizer.json", bytes);
  const auto tokenizer = kvc::Tokenizer::Load(kvc::fuzz::Directory());
  const auto ids = tokenizer->Encode(" Hello <s> w\u00f6rld 12\n\u2581x", kvc::SpecialTokens::kAdd);
  (void)tokenizer->Decode(ids);
}
