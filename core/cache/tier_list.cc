#include "core/cache/tier_list.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/base/error.h"

namespace kvc {
namespace {

[[noreturn]] void Refuse(std::string_view text, const std::string& option) {
  KVC_THROW(kUsage,
            "{}: expected shares from 0 to 1, both among them, as in 0,1/8,1/4,1 or "
            "key=0,1/4,1;value=0,1/2,1, got {}",
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

// The shares above 0, largest first, each once.
std::vector<double> ReadShares(std::string_view list, const std::string& option) {
  std::vector<double> shares;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    shares.push_back(ReadShare(list.substr(begin, end - begin), option));
    begin = end + 1;
  }
  std::ranges::sort(shares, std::greater<>());
  shares.erase(std::unique(shares.begin(), shares.end()), shares.end());
  if (shares.front() != 1.0 || shares.back() != 0.0) Refuse(list, option);
  shares.pop_back();
  return shares;
}

}  // namespace

std::vector<Tier> ParseTiers(std::string_view text, const std::string& option) {
  std::vector<Tier> tiers;
  const size_t split = text.find(';');
  if (split == std::string_view::npos) {
    for (const double share : ReadShares(text, option)) tiers.push_back({share, share});
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
  for (const double key : ReadShares(keys.substr(kKey.size()), option)) {
    for (const double value : ReadShares(values.substr(kValue.size()), option)) {
      tiers.push_back({key, value});
    }
  }
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
