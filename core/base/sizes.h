#pragma once
// Sizes as users write them: lengths (4096, 4k, 128k), shares (25%, 0.25), bytes (1GiB), budgets.

#include <cstdint>
#include <string>
#include <string_view>

namespace kvc {

// "4096", "4k" = 4096, "128k" = 131072, "1M" = 1048576. Throws kUsage naming `option`.
[[nodiscard]] int64_t ParseLength(std::string_view text, const std::string& option);
// "1GiB", "512MiB", "100MB", "4096". Throws kUsage.
[[nodiscard]] int64_t ParseBytes(std::string_view text, const std::string& option);
// "25%" or "0.25" -> 0.25; in (0, 1]. Throws kUsage.
[[nodiscard]] double ParseShare(std::string_view text, const std::string& option);

// What --budget asks for (DESIGN: "What a budget means").
struct Budget {
  enum class Unit {
    kShare,   // of the bytes that the original model would cache in the bundle's dtype
    kTokens,  // token-equivalents per head: tokens x the original model's bytes for one token
    kBytes,   // bytes for a sequence of `at_length` tokens
  };
  Unit unit = Unit::kShare;
  double share = 1.0;
  int64_t tokens = 0;
  int64_t bytes = 0;
  int64_t at_length = 0;
};
// "25%", "0.25", "512tok", "1GiB@128k". Throws kUsage.
[[nodiscard]] Budget ParseBudget(std::string_view text, const std::string& option);
[[nodiscard]] std::string ToString(const Budget& budget);

// A key rank: "25%" / "0.25" (of the layer's key width) or "48" (dimensions of a group).
struct RankRequest {
  bool is_share = true;
  double share = 1.0;
  int64_t dims = 0;
};
[[nodiscard]] RankRequest ParseRank(std::string_view text, const std::string& option);

// "1.5 GiB", "320 B"
[[nodiscard]] std::string FormatBytes(int64_t bytes);

}  // namespace kvc
