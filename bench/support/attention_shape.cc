#include "bench/support/attention_shape.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/cache/bit_spread.h"
#include "core/cache/tier_list.h"

namespace kvc::bench {
namespace {

int64_t KeyHeads(const AttentionShape& shape) { return shape.rebuild ? 1 : shape.kv_heads; }

void Check(const AttentionShape& shape) {
  const auto check = [](bool good, const char* what) {
    KVC_CHECK(good, kUsage, "--shape: expected {}", what);
  };
  check(shape.kv_heads > 0 && shape.query_heads > 0, "heads and kv of at least 1");
  check(shape.query_heads % shape.kv_heads == 0, "heads to be a multiple of kv");
  check(shape.width > 0 && shape.key_width > 0 && shape.tokens > 0, "positive widths and tokens");
  check(!shape.rebuild || shape.width % 2 == 0, "an even width with latent, which is rotated");
  check(shape.batch > 0, "batch of at least 1");
  check(shape.skew >= 1.0 && shape.skew < std::max(1.5, static_cast<double>(shape.kv_heads)),
        "skew of at least 1 and below kv");
}

double ReadNumber(const std::string& text, const std::string& option) {
  size_t used = 0;
  double number = NAN;
  try {
    number = std::stod(text, &used);
  } catch (const std::exception&) {  // what follows names it
  }
  KVC_CHECK(used == text.size() && std::isfinite(number), kUsage, "{}: expected a number, got {}",
            option, text);
  return number;
}

std::vector<double> ReadTiers(std::string text, const std::string& option) {
  std::ranges::replace(text, '+', ',');
  std::vector<double> shares;
  for (const Tier& tier : ParseTiers("0," + text, option)) shares.push_back(tier.key_share);
  return shares;
}

// Sets a part whose value is a number of heads, columns or tokens; false for other parts.
bool SetCount(const std::string& name, const std::string& value, AttentionShape& shape) {
  const std::pair<const char*, int64_t AttentionShape::*> parts[] = {
      {"heads", &AttentionShape::query_heads}, {"kv", &AttentionShape::kv_heads},
      {"width", &AttentionShape::width},       {"tokens", &AttentionShape::tokens},
      {"batch", &AttentionShape::batch},
  };
  for (const auto& [part, member] : parts) {
    if (name != part) continue;
    shape.*member = ParseLength(value, "--shape: " + name);
    return true;
  }
  return false;
}

void SetPart(std::string_view part, AttentionShape& shape, bool& has_key) {
  const size_t equals = part.find('=');
  const std::string name(part.substr(0, equals));
  const std::string value(equals == std::string_view::npos ? "" : part.substr(equals + 1));
  const std::string option = "--shape: " + name;
  if (SetCount(name, value, shape)) return;
  if (name == "dtype") {
    shape.format = RowFormatFromName(value);
  } else if (name == "budget") {
    shape.budget = ParseShare(value, option);
  } else if (name == "skew") {
    shape.skew = ReadNumber(value, option);
  } else if (name == "tiers") {
    shape.tiers = ReadTiers(value, option);
  } else if (name == "key" || name == "latent") {
    KVC_CHECK(!has_key, kUsage, "--shape: expected key or latent once");
    has_key = true;
    shape.key_width = ParseLength(value, option);
    shape.rebuild = name == "latent";
  } else {
    KVC_THROW(kUsage,
              "--shape: expected heads, kv, width, key, latent, tokens, dtype, batch, budget, skew "
              "or tiers, got \"{}\"",
              name);
  }
}

// The ratio r of 1, r, r^2, ... [count] whose largest number is `skew` times their mean.
double RatioOf(int64_t count, double skew) {
  double low = 0.0;
  double high = 1.0;
  for (int step = 0; step < 100; ++step) {
    const double ratio = 0.5 * (low + high);
    double sum = 0.0;
    for (int64_t i = 0; i < count; ++i) sum += std::pow(ratio, static_cast<double>(i));
    (static_cast<double>(count) / sum > skew ? low : high) = ratio;
  }
  return high;
}

}  // namespace

CheapCode::CheapCode(const RowFormat& format, int64_t width)
    : mixed_(IsMixed(format)), width_(width) {
  if (!NeedsSteps(format)) return;
  std::vector<float> errors;  // [4, width]: each column's variance is a tenth less
  for (const int32_t bits : {8, 4, 2, 0}) {
    if (bits > 0 && (mixed_ || bits == ElementBits(format))) {
      steps_.insert(steps_.end(), static_cast<size_t>(width), std::ldexp(2.0F, -bits));
    }
    for (int64_t i = 0; i < width; ++i) {
      errors.push_back(std::ldexp(std::pow(0.9F, static_cast<float>(i)), -2 * bits));
    }
  }
  const ColumnErrors row = {errors.data(), width};
  if (mixed_) ends_ = SpreadBits({&row, 1}, format.rate)[0];
}

CodeSteps CheapCode::steps() const {
  if (steps_.empty()) return {};
  return mixed_ ? CodeSteps(steps_.data(), width_, ends_) : CodeSteps(steps_.data());
}

int64_t AttentionShape::LayerBytes() const {
  const auto bytes = [&](int64_t columns) {
    return RowBytes(format, columns, CheapCode(format, columns).steps());
  };
  return tokens * (KeyHeads(*this) * bytes(key_width) + kv_heads * bytes(width));
}

bool AttentionShape::IsPlain() const {
  return batch == 1 && budget == 1.0 && skew == 1.0 && tiers.size() == 1;
}

AttentionShape ParseAttentionShape(std::string_view text) {
  AttentionShape shape;
  bool has_key = false;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    SetPart(text.substr(0, comma), shape, has_key);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  KVC_CHECK(!shape.rebuild || !NeedsSteps(shape.format), kUsage,
            "--shape: expected latents in f32, f16, bf16 or int8, got {}",
            RowFormatName(shape.format));
  if (!has_key) shape.key_width = shape.width;
  Check(shape);
  return shape;
}

std::vector<int64_t> RowsOfHeads(const AttentionShape& shape, int64_t sequence) {
  const int64_t heads = shape.kv_heads;
  const double mean = std::max(1.0, std::round(shape.budget * static_cast<double>(shape.tokens)));
  const auto total = static_cast<int64_t>(mean) * heads;
  const double ratio = shape.skew > 1.0 ? RatioOf(heads, shape.skew) : 1.0;
  std::vector<double> weights;
  for (int64_t h = 0; h < heads; ++h) weights.push_back(std::pow(ratio, static_cast<double>(h)));
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> rows(static_cast<size_t>(heads), 1);
  int64_t left = total;
  for (int64_t h = heads - 1; h > 0; --h) {
    const auto share = static_cast<int64_t>(static_cast<double>(total) * weights[h] / sum);
    rows[(h + sequence) % heads] = std::max<int64_t>(1, share);
    left -= rows[(h + sequence) % heads];
  }
  rows[sequence % heads] = left;
  return rows;
}

std::vector<int64_t> RowsOfTiers(const AttentionShape& shape, int64_t rows) {
  const auto tiers = std::ssize(shape.tiers);
  std::vector<int64_t> counts;
  for (int64_t t = 0; t < tiers; ++t) counts.push_back(rows * (t + 1) / tiers - rows * t / tiers);
  return counts;
}

}  // namespace kvc::bench
