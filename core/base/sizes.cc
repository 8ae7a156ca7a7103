#include "core/base/sizes.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <span>

#include "core/base/error.h"

namespace kvc {
namespace {

struct Unit {
  std::string_view suffix;
  int64_t factor;
};

constexpr std::array<Unit, 7> kLengthUnits = {{
    {"", 1},
    {"k", 1LL << 10},
    {"K", 1LL << 10},
    {"m", 1LL << 20},
    {"M", 1LL << 20},
    {"g", 1LL << 30},
    {"G", 1LL << 30},
}};

constexpr std::array<Unit, 10> kByteUnits = {{
    {"", 1},
    {"B", 1},
    {"KiB", 1LL << 10},
    {"MiB", 1LL << 20},
    {"GiB", 1LL << 30},
    {"TiB", 1LL << 40},
    {"KB", 1'000},
    {"MB", 1'000'000},
    {"GB", 1'000'000'000},
    {"TB", 1'000'000'000'000},
}};

// Sizes stay below this, so that sums and products with element sizes cannot overflow.
constexpr double kLargestSize = 0x1.0p60;

// The number at the front of `text`; `rest` becomes what follows it. Empty when there is no number.
std::optional<double> ParseNumber(std::string_view text, std::string_view& rest) {
  double value = 0.0;
  // Digits first: from_chars would also take "inf", "nan" and "-1".
  if (text.empty() || !((text[0] >= '0' && text[0] <= '9') || text[0] == '.')) {
    return std::nullopt;
  }
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc()) {
    return std::nullopt;
  }
  rest = text.substr(static_cast<size_t>(end - text.data()));
  return value;
}

// A number with a unit, when the product is a whole number of at least 1.
std::optional<int64_t> ParseScaled(std::string_view text, std::span<const Unit> units) {
  std::string_view suffix;
  const std::optional<double> number = ParseNumber(text, suffix);
  if (!number) {
    return std::nullopt;
  }
  for (const Unit& unit : units) {
    if (unit.suffix == suffix) {
      const double scaled = *number * static_cast<double>(unit.factor);
      const bool valid = scaled >= 1.0 && scaled < kLargestSize && scaled == std::floor(scaled);
      return valid ? std::optional<int64_t>(static_cast<int64_t>(scaled)) : std::nullopt;
    }
  }
  return std::nullopt;
}

std::optional<double> ParseShareText(std::string_view text) {
  std::string_view rest;
  const std::optional<double> number = ParseNumber(text, rest);
  if (!number || (rest != "%" && !rest.empty())) {
    return std::nullopt;
  }
  const double share = rest == "%" ? *number / 100.0 : *number;
  return share > 0.0 && share <= 1.0 ? std::optional<double>(share) : std::nullopt;
}

std::string Shortest(double value) {
  std::array<char, 64> buffer{};
  const auto result =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed);
  return {buffer.data(), result.ptr};
}

std::string ShareText(double share) {
  char percent[32];
  std::snprintf(percent, sizeof(percent), "%.6g%%", share * 100.0);
  // A percentage when that reads back as the same share, else every digit.
  return ParseShareText(percent) == share ? percent : Shortest(share);
}

std::string ByteText(int64_t bytes) {
  for (size_t i = 5; i >= 2; --i) {  // TiB ... KiB
    if (bytes >= kByteUnits[i].factor && bytes % kByteUnits[i].factor == 0) {
      return std::to_string(bytes / kByteUnits[i].factor) + std::string(kByteUnits[i].suffix);
    }
  }
  return std::to_string(bytes);
}

}  // namespace

int64_t ParseLength(std::string_view text, const std::string& option) {
  const std::optional<int64_t> length = ParseScaled(text, kLengthUnits);
  KVC_CHECK(length, kUsage, "{}: expected a length such as 4096, 4k or 128k, got \"{}\"", option,
            text);
  return *length;
}

int64_t ParseBytes(std::string_view text, const std::string& option) {
  const std::optional<int64_t> bytes = ParseScaled(text, kByteUnits);
  KVC_CHECK(bytes, kUsage, "{}: expected a size such as 1GiB, 512MiB or 4096, got \"{}\"", option,
            text);
  return *bytes;
}

double ParseShare(std::string_view text, const std::string& option) {
  const std::optional<double> share = ParseShareText(text);
  KVC_CHECK(share, kUsage, "{}: expected a share in (0, 1] such as 25% or 0.25, got \"{}\"", option,
            text);
  return *share;
}

Budget ParseBudget(std::string_view text, const std::string& option) {
  Budget budget;
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    budget.unit = Budget::Unit::kBytes;
    budget.bytes = ParseBytes(text.substr(0, at), option);
    budget.at_length = ParseLength(text.substr(at + 1), option);
    return budget;
  }
  if (text.ends_with("tok")) {
    budget.unit = Budget::Unit::kTokens;
    budget.tokens = ParseLength(text.substr(0, text.size() - 3), option);
    return budget;
  }
  const std::optional<double> share = ParseShareText(text);
  KVC_CHECK(share, kUsage,
            "{}: expected a budget such as 25%, 0.25, 512tok or 1GiB@128k, got \"{}\"", option,
            text);
  budget.share = *share;
  return budget;
}

std::string ToString(const Budget& budget) {
  switch (budget.unit) {
    case Budget::Unit::kTokens:
      return std::to_string(budget.tokens) + "tok";
    case Budget::Unit::kBytes:
      return ByteText(budget.bytes) + "@" + std::to_string(budget.at_length);
    case Budget::Unit::kShare:
      break;
  }
  return ShareText(budget.share);
}

RankRequest ParseRank(std::string_view text, const std::string& option) {
  RankRequest request;
  const bool is_whole =
      !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  if (is_whole) {
    request.is_share = false;
    request.dims = ParseLength(text, option);
    return request;
  }
  const std::optional<double> share = ParseShareText(text);
  KVC_CHECK(share, kUsage, "{}: expected a rank such as 25%, 0.25 or 48, got \"{}\"", option, text);
  request.share = *share;
  return request;
}

std::string FormatBytes(int64_t bytes) {
  static constexpr std::array<const char*, 5> kNames = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  // 1023.95 would print as "1024.0" of the smaller unit.
  while (std::abs(value) >= (unit == 0 ? 1024.0 : 1023.95) && unit + 1 < kNames.size()) {
    value /= 1024.0;
    ++unit;
  }
  char text[48];
  if (unit == 0) {
    std::snprintf(text, sizeof(text), "%lld B", static_cast<long long>(bytes));
  } else {
    std::snprintf(text, sizeof(text), "%.1f %s", value, kNames[unit]);
  }
  return text;
}

}  // namespace kvc
