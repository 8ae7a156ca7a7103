#pragma once
// Tiers as users write them (--tiers): the shares of its width that a token may keep, and in how
// many bits.

#include <string>
#include <string_view>
#include <vector>

#include "core/cache/cache_policy.h"

namespace kvc {

// "0,1/8,1/4,1": keys and values alike. "key=0,1/4,1;value=0,1/2,1": each list by itself, a token
// may keep any share of its key with any share of its value. Shares are fractions, decimals or
// percentages; 0 (a token may be dropped) and 1 must be among them, and a token is dropped whole.
// "1x8,1x4,1/2x4": a share may say in how many bits, 8, 4 or 2, it keeps its columns (rows of the
// formats x8, x4, x2, core/base/row_format.h); in a list that says so 0 and 1 need not be written.
// "x3,x1.5": all columns in so many bits on average, in quarters of a bit, spread by column (the
// mixtures avg3, avg1.5). 1x3 is x3, x8 is 1x8; x4 and x2 are mixtures, 1x4 and 1x2 are not.
// Widest first, then most bits first, without the dropped. Throws kUsage.
[[nodiscard]] std::vector<Tier> ParseTiers(std::string_view text, const std::string& option);

// Tiers together with the text that asked for them, which is what records and file names show.
struct NamedTiers {
  std::string text;
  std::vector<Tier> tiers;
};
// Parses tiers and keeps their text. Throws like ParseTiers.
[[nodiscard]] NamedTiers ParseNamedTiers(std::string text, const std::string& option);

}  // namespace kvc
