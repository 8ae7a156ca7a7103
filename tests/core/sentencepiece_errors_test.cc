// Errors of tokenizer.model: a broken model is called so, a kind that kvc lacks is refused by name.

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "core/tokenizer/tokenizer.h"
#include "tests/core/tokenizer_cases.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

// A message of one length-delimited field.
std::string Wire(char number, const std::string& bytes) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(bytes.size()) +
         bytes;
}
std::string Score(float score) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &score, 4);
  return "\x15" + bytes;
}

TEST(SentencePieceErrors, BrokenModels) {
  const testing::TempDir directory;
  const auto expect = [&](const std::string& bytes, const char* message) {
    SCOPED_TRACE(message);
    testing::WriteText(directory / "tokenizer.model", bytes);
    EXPECT_KVC_ERROR((void)Tokenizer::Load(directory.path()), kBadInput, message);
  };
  const std::string a = Wire(1, Wire(1, "a"));
  const std::string unk = Wire(1, Wire(1, "<unk>") + std::string("\x18\x02", 2));
  const std::string bpe = Wire(2, std::string("\x18\x02", 2));
  expect("", "without pieces");
  expect(bpe, "without pieces");
  expect(a.substr(0, a.size() - 1), "a broken one");
  expect(std::string("\x0b", 1), "a broken one");   // a group
  expect(std::string(12, '\xff'), "a broken one");  // an endless number
  expect(std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), "a broken one");
  expect(Wire(1, Wire(1, "")), "piece 0: expected a text in UTF-8, got an empty one");
  expect(Wire(1, Wire(1, "\xff")), "piece 0: expected a text in UTF-8, got other bytes");
  expect(Wire(1, Wire(1, "a") + Score(std::nanf(""))), "piece 0 (\"a\"): expected a finite score");
  expect(Wire(1, Wire(1, "a") + Score(HUGE_VALF)), "finite score");
  expect(Wire(1, Wire(1, "a") + std::string("\x18\x09", 2)), "a type of 1 to 6, got 9");
  expect(unk + a + a, "expected once, got twice");
  expect(a + Wire(2, std::string("\xc0\x02\x07", 3)), "unk_id: expected one of 1 tokens, got 7");
  expect(a + bpe, "unk_token: expected a token, got \"<unk>\"");
  expect(unk + Wire(2, std::string("\x18\x09", 2)), "model_type: expected 1 to 4, got 9");
  expect(unk + a + Wire(3, Wire(2, "abc")), "precompiled_charsmap: expected a table");
  testing::WriteText(directory / "tokenizer.model", unk + a + Wire(2, std::string("\x18\x03", 2)));
  EXPECT_KVC_ERROR((void)Tokenizer::Load(directory.path()), kUnsupported, "got words");
  testing::WriteText(directory / "tokenizer.model", unk + a + bpe);
  EXPECT_EQ(Tokenizer::Load(directory.path())->TokenId("a"), 1);
}

TEST(SentencePieceErrors, NoModelAtAll) {
  const testing::TempDir directory;
  testing::WriteText(directory / "tokenizer.model", "not a model");
  EXPECT_KVC_ERROR(Tokenizer::Load(directory.path()), kBadInput, "SentencePiece model");
}

}  // namespace
}  // namespace kvc
