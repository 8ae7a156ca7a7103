#pragma once
// Parsing and printing of sizes as users write them: lengths (4096, 4k, 128k), shares (25%, 0.25),
// bytes (1GiB), budgets and ranks. Every parser throws kUsage naming `option`.

#include <cstdint>
#include <string>
#include <string_view>

namespace kvc {

// A length in tokens: "4096", "4k" = 4096, "128k" = 131072, "1M" = 1048576.
[[nodiscard]] int64_t ParseLength(std::string_view text, const std::string& option);
// A number of bytes: "1GiB", "512MiB", "100MB", "4096".
[[nodiscard]] int64_t ParseBytes(std::string_view text, const std::string& option);
// A share in (0, 1]: "25%" and "0.25" are 0.25.
[[nodiscard]] double ParseShare(std::string_view text, const std::string& option);

// The cache budget that --budget asks for (DESIGN: "What a budget means").
struct Budget {
  enum class Unit {
    kShare,   // of the bytes that the original model would cache in its own dtype
    kTokens,  // token-equivalents per head: tokens x the original model's bytes for one token
    kBytes,   // bytes for a sequence of `at_length` tokens
  };
  Unit unit = Unit::kShare;
  double share = 1.0;
  int64_t tokens = 0;
  int64_t bytes = 0;
  int64_t at_length = 0;
};
// A budget: "25%", "0.25", "512tok", "1GiB@128k".
[[nodiscard]] Budget ParseBudget(std::string_view text, const std::string& option);
// The budget in the same syntax; ParseBudget reads it back as the same budget.
[[nodiscard]] std::string ToString(const Budget& budget);

// A key rank: a share of the layer's key width ("25%", "0.25") or dimensions of a group ("48").
struct RankRequest {
  bool is_share = true;
  double share = 1.0;
  int64_t dims = 0;
};
[[nodiscard]] RankRequest ParseRank(std::string_view text, const std::string& option);

// Bytes for people to read: "1.5 GiB", "320 B".
[[nodiscard]] std::string FormatBytes(int64_t bytes);

}  // namespace kvc
