#include "core/io/text_input.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

TEST(Utf8, AcceptsExactlyWellFormedText) {
  for (const char* text : {"", "plain", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                           "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_NO_THROW(CheckUtf8(text, "t")) << text;
  }
  // Stray and missing continuations, overlong forms, surrogates, beyond U+10FFFF.
  for (const char* text :
       {"\x80", "\xc3", "\xc3x", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_KVC_ERROR(CheckUtf8(std::string("ab") + text, "t"), kBadInput, "at offset 2");
  }
}

TEST(ReadDocuments, TextIsOneDocument) {
  const testing::TempDir dir;
  WriteFile(dir / "a.txt", "two\nlines\n");
  EXPECT_EQ(ReadDocuments(dir / "a.txt"), std::vector<std::string>{"two\nlines\n"});
  WriteFile(dir / "empty.txt", "");
  EXPECT_KVC_ERROR((void)ReadDocuments(dir / "empty.txt"), kBadInput, "empty");
  WriteFile(dir / "bad.txt", "abc\xff");
  EXPECT_KVC_ERROR((void)ReadDocuments(dir / "bad.txt"), kBadInput, "offset 3");
  EXPECT_KVC_ERROR((void)ReadDocuments(dir / "none.txt"), kIo, "none.txt");
}

TEST(ReadDocuments, JsonLines) {
  const testing::TempDir dir;
  WriteFile(dir / "a.jsonl", "{\"text\": \"one\\n\"}\r\n\n  \n{\"id\": 3, \"text\": \"two\"}");
  EXPECT_EQ(ReadDocuments(dir / "a.jsonl"), (std::vector<std::string>{"one\n", "two"}));
  WriteFile(dir / "b.jsonl", "{\"text\": \"one\"}\n{\"prompt\": \"two\"}\n");
  EXPECT_KVC_ERROR((void)ReadDocuments(dir / "b.jsonl"), kBadInput, "line 2: expected the key");
  WriteFile(dir / "c.jsonl", "{\"text\": \"one\"}\nnonsense\n");
  EXPECT_KVC_ERROR((void)ReadDocuments(dir / "c.jsonl"), kBadInput, "line 2");
  WriteFile(dir / "d.jsonl", "\n\n");
  EXPECT_KVC_ERROR((void)ReadDocuments(dir / "d.jsonl"), kBadInput, "empty");
}

}  // namespace
}  // namespace kvc
