#include "core/cache/tier_list.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "core/base/error.h"
#include "core/base/row_format.h"
#include "core/cache/cache_bases.h"

namespace kvc {
namespace {

[[noreturn]] void Refuse(std::string_view text, const std::string& option) {
  KVC_THROW(kUsage,
            "{}: expected shares from 0 to 1, both among them, as in 0,1/8,1/4,1 or "
            "key=0,1/4,1;value=0,1/2,1, or shares in 8, 4 or 2 bits, as in 1x8,1x4,1x2, or bits "
            "on average in quarters, as in x4,x1.5, got {}",
            option, text);
}

// A number without sign; false where something is left over.
bool ReadNumber(std::string_view text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(value);
}

double ReadShare(std::string_view text, const std::string& option) {
  double value = 0.0;
  double divisor = 1.0;
  const size_t slash = text.find('/');
  bool is_share = false;
  if (slash != std::string_view::npos) {
    is_share =
        ReadNumber(text.substr(0, slash), value) && ReadNumber(text.substr(slash + 1), divisor);
  } else if (text.ends_with('%')) {
    divisor = 100.0;
    is_share = ReadNumber(text.substr(0, text.size() - 1), value);
  } else {
    is_share = ReadNumber(text, value);
  }
  if (!is_share || divisor <= 0.0 || !(value >= 0.0 && value <= divisor)) Refuse(text, option);
  return value / divisor;
}

// What a tier keeps of a row.
struct Part {
  double share = 1.0;
  std::optional<RowFormat> format = {};  // none: the cache's

  friend bool operator==(const Part&, const Part&) = default;
  // Bits that stand for a column; those of the cache's own format are the most.
  [[nodiscard]] double bits() const { return format ? MeanBits(*format) : 32.0; }
  [[nodiscard]] bool mixed() const { return format && IsMixed(*format); }
};

bool IsWider(const Part& a, const Part& b) {
  if (a.share != b.share) return a.share > b.share;
  if (a.bits() != b.bits()) return a.bits() > b.bits();
  return a.mixed() && !b.mixed();
}

// The format of "x8", "x1.5": mixed where the share is not written, or no other has such bits.
RowFormat ReadBits(std::string_view text, bool mixed, const std::string& option) {
  double bits = 0.0;
  const bool is_number = ReadNumber(text, bits);
  for (const RowFormat& format : kStepFormats) {
    if (is_number && bits == MeanBits(format) && !(mixed && bits < 8.0)) return format;
  }
  const double quarters = 4.0 * bits;
  if (!is_number || quarters != std::floor(quarters) || quarters < 1.0 || quarters > kMixedRates) {
    Refuse(text, option);
  }
  return MixedRows(static_cast<int32_t>(quarters));
}

Part ReadPart(std::string_view text, const std::string& option) {
  const size_t times = text.find('x');
  if (times == std::string_view::npos) return {ReadShare(text, option), {}};
  const double share = times == 0 ? 1.0 : ReadShare(text.substr(0, times), option);
  const RowFormat format = ReadBits(text.substr(times + 1), times == 0, option);
  if (share == 0.0 || (IsMixed(format) && share < 1.0)) Refuse(text, option);
  return {share, format};
}

// The parts that are more than nothing, widest first, each once.
std::vector<Part> ReadParts(std::string_view list, const std::string& option) {
  std::vector<Part> parts;
  bool few_bits = false;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    parts.push_back(ReadPart(list.substr(begin, end - begin), option));
    few_bits = few_bits || parts.back().format.has_value();
    begin = end + 1;
  }
  if (few_bits) {
    parts.push_back({1.0, {}});
    parts.push_back({0.0, {}});
  }
  std::ranges::sort(parts, IsWider);
  parts.erase(std::unique(parts.begin(), parts.end()), parts.end());
  if (parts.front().share != 1.0 || parts.back().share != 0.0) Refuse(list, option);
  parts.pop_back();
  return parts;
}

Tier MakeTier(const Part& key, const Part& value) {
  return {key.share, value.share, key.format, value.format};
}

}  // namespace

std::vector<Tier> ParseTiers(std::string_view text, const std::string& option) {
  std::vector<Tier> tiers;
  const size_t split = text.find(';');
  if (split == std::string_view::npos) {
    for (const Part& part : ReadParts(text, option)) tiers.push_back(MakeTier(part, part));
    return tiers;
  }
  const std::string_view first = text.substr(0, split);
  const std::string_view second = text.substr(split + 1);
  constexpr std::string_view kKey = "key=";
  constexpr std::string_view kValue = "value=";
  const bool in_order = first.starts_with(kKey) && second.starts_with(kValue);
  if (!in_order && !(first.starts_with(kValue) && second.starts_with(kKey))) Refuse(text, option);
  const std::string_view keys = in_order ? first : second;
  const std::string_view values = in_order ? second : first;
  for (const Part& key : ReadParts(keys.substr(kKey.size()), option)) {
    for (const Part& value : ReadParts(values.substr(kValue.size()), option)) {
      tiers.push_back(MakeTier(key, value));
    }
  }
  // The parts are in order already: a stable sort leaves those of more bits first.
  std::ranges::stable_sort(tiers, [](const Tier& a, const Tier& b) {
    return a.key_share + a.value_share > b.key_share + b.value_share;
  });
  return tiers;
}

NamedTiers ParseNamedTiers(std::string text, const std::string& option) {
  std::vector<Tier> tiers = ParseTiers(text, option);
  return {std::move(text), std::move(tiers)};
}

}  // namespace kvc
