#include "core/io/text_input.h"

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"

namespace kvc {
namespace {

// Returns the length of the well-formed UTF-8 sequence at `at` (Unicode 15, table 3-7), or 0.
size_t SequenceLength(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
  };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0U) == 0x80U; };
  const unsigned first = byte(0);
  if (first < 0x80) {
    return 1;
  }
  if (first >= 0xc2 && first <= 0xdf) {
    return continues(1) ? 2 : 0;
  }
  if (first >= 0xe0 && first <= 0xef) {
    const bool overlong = first == 0xe0 && byte(1) < 0xa0;
    const bool surrogate = first == 0xed && byte(1) > 0x9f;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool overlong = first == 0xf0 && byte(1) < 0x90;
    const bool too_large = first == 0xf4 && byte(1) > 0x8f;
    return continues(1) && continues(2) && continues(3) && !overlong && !too_large ? 4 : 0;
  }
  return 0;
}

std::vector<std::string> TextsOfJsonLines(const std::string& text,
                                          const std::filesystem::path& path) {
  std::vector<std::string> documents;
  size_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      continue;
    }
    const std::string origin = path.string() + " line " + std::to_string(line_number);
    documents.push_back(GetString(ParseJson(line, origin), "text", origin));
  }
  return documents;
}

}  // namespace

void CheckUtf8(std::string_view text, const std::string& origin) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t length = SequenceLength(text, at);
    KVC_CHECK(length > 0, kBadInput, "{}: expected UTF-8, got an invalid byte {} at offset {}",
              origin, static_cast<int>(static_cast<unsigned char>(text[at])), at);
    at += length;
  }
}

std::vector<std::string> ReadDocuments(const std::filesystem::path& path) {
  std::string text = ReadFile(path);
  CheckUtf8(text, path.string());
  std::vector<std::string> documents;
  if (path.extension() == ".jsonl") {
    documents = TextsOfJsonLines(text, path);
  } else if (!text.empty()) {
    documents.push_back(std::move(text));
  }
  KVC_CHECK(!documents.empty(), kBadInput, "{}: expected text, got an empty file", path.string());
  return documents;
}

}  // namespace kvc
