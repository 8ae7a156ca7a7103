#pragma once
// Attention in double precision, straight from its definition, with a bound on what float may
// differ.
//
// Bounds (u = 2^-24, Higham 2002): a float sum of n terms is off by at most n u sum |terms|,
// whatever its order. A score's error d_i makes its weight wrong by a factor e^d_i; the exponential
// is good to 2^-22 and is applied once for each row and once for each change of the running
// maximum. Numerator and denominator of the softmax are wrong by the same relative bound each.

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/attention.h"
#include "tests/kernels/test_arrays.h"

namespace kvc::kernels {

inline constexpr std::array<RowFormat, 8> kEveryFormat = {
    kRowsF32, kRowsF16, kRowsBF16, kRowsInt8, kRowsX8, kRowsX4, kRowsX2, MixedRows(12)};

// Those that prefill and rebuilds read too.
inline constexpr std::array<RowFormat, 4> kFormatsWithoutSteps = {kRowsF32, kRowsF16, kRowsBF16,
                                                                  kRowsInt8};

// Numbers and how far float may be from them.
struct Bounded {
  std::vector<double> value;
  std::vector<double> bound;
};

inline Bounded StoredKey(const TestArray& keys, int64_t row) {
  Bounded key;
  for (int64_t k = 0; k < keys.cols; ++k) {
    key.value.push_back(keys(row, k));
    key.bound.push_back(0.0);
  }
  return key;
}

// What a rebuild is made of.
struct TestRebuild {
  TestArray b;       // [D, R]
  TestArray bias;    // [1, D]
  TestArray weight;  // [1, D]
  TestArray cos;     // [positions, D/2]
  TestArray sin;
  bool use_bias = false;
  bool use_norm = false;

  [[nodiscard]] KeyRebuild view() const {
    KeyRebuild rebuild;
    rebuild.rebuild = b.view();
    rebuild.bias = use_bias ? bias.view().data : nullptr;
    rebuild.norm_weight = use_norm ? weight.view().data : nullptr;
    rebuild.norm_epsilon = 1e-5F;
    rebuild.cos = cos.view();
    rebuild.sin = sin.view();
    rebuild.units = FindUnitRows(rebuild.rebuild);
    return rebuild;
  }
};

inline TestRebuild RandomRebuild(
    Rng& rng, int64_t width, int64_t rank, int64_t positions, bool use_bias, bool use_norm) {
  TestRebuild rebuild;
  rebuild.b = RandomArray(rng, width, rank, DType::kF32, 1, 0.3);
  rebuild.bias = RandomArray(rng, 1, width, DType::kF32, 0, 0.3);
  rebuild.weight = RandomArray(rng, 1, width);
  rebuild.cos = RandomArray(rng, positions, width / 2);
  rebuild.sin = RandomArray(rng, positions, width / 2);
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t j = 0; j < width / 2; ++j) {
      const double angle = static_cast<double>(p) / static_cast<double>(1 + j * j);
      rebuild.cos.Set(p, j, static_cast<float>(std::cos(angle)));
      rebuild.sin.Set(p, j, static_cast<float>(std::sin(angle)));
    }
  }
  rebuild.use_bias = use_bias;
  rebuild.use_norm = use_norm;
  return rebuild;
}

// RMS norm: the scale is off by at most what the squares are, and by its own few operations.
inline void NormReference(const TestRebuild& rebuild, Bounded* key) {
  const auto width = static_cast<int64_t>(key->value.size());
  double squares = 0.0;
  double off = 0.0;
  for (size_t d = 0; d < key->value.size(); ++d) {
    squares += key->value[d] * key->value[d];
    off += 2.0 * std::abs(key->value[d]) * key->bound[d] + key->bound[d] * key->bound[d];
  }
  off += static_cast<double>(width + 2) * kUnit * squares;
  const double mean = squares / static_cast<double>(width) + 1e-5F;
  const double scale = 1.0 / std::sqrt(mean);
  const double relative = off / static_cast<double>(width) / mean + 6.0 * kUnit;
  for (int64_t d = 0; d < width; ++d) {
    const auto i = static_cast<size_t>(d);
    const double factor = scale * rebuild.weight(0, d);
    key->bound[i] = std::abs(factor) * (key->bound[i] * (1.0 + relative) +
                                        std::abs(key->value[i]) * (relative + 2.0 * kUnit));
    key->value[i] *= factor;
  }
}

// rope(norm(B c + bias)) of one latent.
inline Bounded RebuiltKey(const TestArray& latents,
                          int64_t row,
                          int64_t position,
                          const TestRebuild& rebuild) {
  const int64_t width = rebuild.b.rows;
  Bounded key;
  for (int64_t d = 0; d < width; ++d) {
    double sum = rebuild.use_bias ? rebuild.bias(0, d) : 0.0;
    double magnitude = std::abs(sum);
    for (int64_t r = 0; r < latents.cols; ++r) {
      sum += latents(row, r) * rebuild.b(d, r);
      magnitude += std::abs(latents(row, r) * rebuild.b(d, r));
    }
    key.value.push_back(sum);
    key.bound.push_back(static_cast<double>(latents.cols + 1) * kUnit * magnitude);
  }
  if (rebuild.use_norm) {
    NormReference(rebuild, &key);
  }
  const int64_t half = width / 2;
  for (int64_t j = 0; j < half; ++j) {
    const auto low = static_cast<size_t>(j);
    const auto high = static_cast<size_t>(j + half);
    const double a = key.value[low];
    const double b = key.value[high];
    const double c = rebuild.cos(position, j);
    const double s = rebuild.sin(position, j);
    const double bound_low = key.bound[low];
    key.value[low] = a * c - b * s;
    key.value[high] = b * c + a * s;
    key.bound[low] = std::abs(c) * bound_low + std::abs(s) * key.bound[high] +
                     3.0 * kUnit * (std::abs(a * c) + std::abs(b * s));
    key.bound[high] = std::abs(c) * key.bound[high] + std::abs(s) * bound_low +
                      3.0 * kUnit * (std::abs(b * c) + std::abs(a * s));
  }
  return key;
}

// One cached token as the reference sees it. A value may be narrower than the output.
struct Token {
  Bounded key;
  std::vector<double> value;
  // How far its weight may be from the softmax's, as a share of the largest weight.
  double weight_error = 0.0;
};

inline std::vector<double> StoredValue(const TestArray& values, int64_t row) {
  std::vector<double> value;
  for (int64_t c = 0; c < values.cols; ++c) {
    value.push_back(values(row, c));
  }
  return value;
}

// softmax(scale q . k) v over `tokens`, `width` columns.
inline Bounded AttentionReference(const std::vector<double>& query,
                                  std::span<const Token> tokens,
                                  double scale,
                                  int64_t width) {
  const auto count = static_cast<double>(tokens.size());
  std::vector<double> scores;
  double error = 0.0;  // of any score
  for (const Token& token : tokens) {
    double score = 0.0;
    double off = 0.0;
    for (size_t k = 0; k < token.key.value.size(); ++k) {
      const double product = std::abs(query[k] * token.key.value[k]);
      score += query[k] * token.key.value[k];
      off += std::abs(query[k]) * token.key.bound[k] +
             static_cast<double>(token.key.value.size() + 3) * kUnit * product;
    }
    scores.push_back(scale * score);
    error = std::max(error, scale * off);
  }
  const auto [lowest, highest] = std::minmax_element(scores.begin(), scores.end());
  const double changes = count / 16.0 + 4.0;  // of the running maximum, at most one for each tile
  const double relative = 2.0 * error + 2.0 * (*highest - *lowest) * kUnit +
                          changes * (0x1.0p-22 + 3.0 * kUnit) + (count + 8.0) * kUnit;
  Bounded output{std::vector<double>(static_cast<size_t>(width)),
                 std::vector<double>(static_cast<size_t>(width), 1e-37)};
  double sum = 0.0;
  for (const double score : scores) {
    sum += std::exp(score - *highest);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    const double weight = std::exp(scores[i] - *highest) / sum;
    for (size_t c = 0; c < tokens[i].value.size(); ++c) {
      output.value[c] += weight * tokens[i].value[c];
      output.bound[c] += weight * std::abs(tokens[i].value[c]) * 2.5 * relative;
    }
  }
  for (const Token& token : tokens) {
    for (size_t c = 0; c < output.value.size(); ++c) {
      const double value = c < token.value.size() ? token.value[c] : 0.0;
      output.bound[c] += token.weight_error / sum * std::abs(value - output.value[c]);
    }
  }
  return output;
}

}  // namespace kvc::kernels
