#pragma once
// Calibration and evaluation text: UTF-8 files, and .jsonl files with one document per line under
// "text".

#include <filesystem>
#include <string>
#include <vector>

namespace kvc {

// Returns one string per document: a .txt file is one, a .jsonl file has one per line. Throws kIo,
// kBadInput (invalid UTF-8 with the byte offset, a line without "text", an empty file).
[[nodiscard]] std::vector<std::string> ReadDocuments(const std::filesystem::path& path);

// Throws kBadInput with the offset of the first invalid byte.
void CheckUtf8(std::string_view text, const std::string& origin);

}  // namespace kvc
