// The encoding of any text by a byte-level tokenizer: what is encoded comes back.

#include "core/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/paths.h"

KVC_FUZZ_TARGET(text) {
  static const auto tokenizer =
      kvc::Tokenizer::Load(kvc::testing::SourceRoot() / "tests/golden/tokenizers/llama3-style");
  const auto ids = tokenizer->Encode(bytes, kvc::SpecialTokens::kNone);
  KVC_CHECK(tokenizer->Decode(ids) == bytes, kInternal, "text: expected it back, got another");
}
