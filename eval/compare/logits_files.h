#pragma once
// Logits of token ids in files, to compare a bundle with other programs.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/ranks.h"
#include "runtime/session.h"

namespace kvc::eval {

// Reads one prompt of token ids from each line; empty lines are skipped. Throws kBadInput naming
// the line.
[[nodiscard]] std::vector<std::vector<int32_t>> ReadIdLines(const std::filesystem::path& file);

// Returns the name of a prompt's file: OUT.npy, OUT.1.npy, OUT.2.npy, ...
[[nodiscard]] std::filesystem::path LogitsFile(const std::filesystem::path& out, size_t prompt);

// A file of logits [tokens, vocabulary].
struct WrittenLogits {
  std::string file;
  int64_t tokens = 0;
};
// Collective: ranks share the prompts. Writes the logits of each line of ids as float32 [tokens,
// vocabulary] into LogitsFile's files. With context 0 through a full cache without compression;
// above 0 through the bundle's own cache, the first `context` tokens as its prompt and the others
// decoded one by one. Throws kUsage where a line has no token behind its context, kBadInput for ids
// outside the vocabulary.
[[nodiscard]] std::vector<WrittenLogits> WriteLogits(
    runtime::Session& session,
    const std::vector<std::vector<int32_t>>& prompts,
    const std::filesystem::path& out,
    int64_t context = 0,
    const Ranks& ranks = OneRank());

}  // namespace kvc::eval
