// Keys rebuilt from latents in a profile's coordinates, against loops in double over what the codes
// stand for.

#include "runtime/cpu/latent_coordinates.h"

#include <cmath>

#include <gtest/gtest.h>

#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/host_device.h"
#include "runtime/cpu/scored_rows.h"
#include "tests/runtime/random_bases.h"

namespace kvc::runtime {
namespace {

constexpr int64_t kHeads = 2;
constexpr int64_t kWidth = 8;  // D
constexpr int64_t kRank = 16;  // R
constexpr int64_t kRows = 37;
constexpr int64_t kPositions = 50;

std::vector<float> Normal(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(rng.NextNormal());
  return values;
}

// Two heads that share a latent, with bases and the model's rebuilds.
struct Latents {
  explicit Latents(bool norm) {
    spec.num_heads = spec.num_kv_heads = kHeads;
    spec.head_width = kWidth;
    spec.layers = {{{kRank, kWidth, {0, 1}, true}}};
    spec.bases = testing::RandomBases(spec, 5, true);
    for (int64_t g = 0; g < kHeads; ++g) {
      kernels::KeyRebuild head;
      head.rebuild = {b.data() + g * kWidth * kRank, kWidth, kRank};
      head.bias = bias.data() + g * kWidth;
      head.norm_weight = norm ? weight.data() : nullptr;
      head.norm_epsilon = 1e-5F;
      head.cos = {cos.data(), kPositions, kWidth / 2};
      head.sin = {sin.data(), kPositions, kWidth / 2};
      heads.push_back(head);
    }
  }

  // k_g = rope(norm(B c + b)) of c = mean + y query^T, [D].
  [[nodiscard]] std::vector<double> KeyOf(const float* y, int64_t position, int64_t g) const {
    const LayerBases& bases = spec.bases->front();
    std::vector<double> c(kRank), key(kWidth);
    for (int64_t r = 0; r < kRank; ++r) {
      c[r] = bases.key_mean[r];
      for (int64_t i = 0; i < kRank; ++i) c[r] += double{y[i]} * bases.query[r * kRank + i];
    }
    double squares = 0.0;
    for (int64_t d = 0; d < kWidth; ++d) {
      key[d] = bias[g * kWidth + d];
      for (int64_t r = 0; r < kRank; ++r) key[d] += double{b[(g * kWidth + d) * kRank + r]} * c[r];
      squares += key[d] * key[d];
    }
    if (heads[0].norm_weight != nullptr) {
      for (int64_t d = 0; d < kWidth; ++d) key[d] *= weight[d] / std::sqrt(squares / kWidth + 1e-5);
    }
    std::vector<double> turned(kWidth);
    for (int64_t j = 0; j < kWidth / 2; ++j) {
      const double x = cos[position * kWidth / 2 + j], z = sin[position * kWidth / 2 + j];
      turned[j] = key[j] * x - key[j + kWidth / 2] * z;
      turned[j + kWidth / 2] = key[j + kWidth / 2] * x + key[j] * z;
    }
    return turned;
  }

  CacheSpec spec;
  std::vector<float> b = Normal(kHeads * kWidth * kRank, 1);
  std::vector<float> bias = Normal(kHeads * kWidth, 2);
  std::vector<float> weight = Normal(kWidth, 3);
  std::vector<float> cos = Normal(kPositions * kWidth / 2, 4);
  std::vector<float> sin = Normal(kPositions * kWidth / 2, 5);
  std::vector<kernels::KeyRebuild> heads;
};

// The coordinates y = (c - mean) key of latents, by loops, as a format holds them: [kRows, R].
std::vector<float> Held(const std::vector<float>& latents,
                        const LayerBases& bases,
                        const RowFormat& format) {
  std::vector<float> y(latents.size());
  for (int64_t t = 0; t < kRows; ++t) {
    for (int64_t i = 0; i < kRank; ++i) {
      double sum = 0.0;
      for (int64_t r = 0; r < kRank; ++r) {
        sum += (double{latents[t * kRank + r]} - bases.key_mean[r]) * bases.key[r * kRank + i];
      }
      y[t * kRank + i] = static_cast<float>(sum);
    }
  }
  const CodeSteps steps = KeySteps(bases, format, 0);
  const int64_t stride = RowBytes(format, kRank, steps);
  std::vector<std::byte> rows(static_cast<size_t>(kRows * stride));
  EncodeRows({y.data(), kRows, kRank}, format, rows.data(), stride, steps);
  DecodeRows(rows.data(), format, stride, {y.data(), kRows, kRank}, steps);
  return y;
}

// A working block of latents [kRows, kRank] at positions from `first` on, with values of zero.
CacheBlock Working(const Latents& model,
                   const std::vector<float>& latents,
                   int64_t first,
                   CacheMeter& meter) {
  const std::vector<float> values(kRows * kHeads * kWidth, 0.0F);
  CacheBlock block(WorkingShape(model.spec, 0, 0), kRows, SharedHostDevice(), meter);
  AppendRows({latents.data(), kRows, kRank}, {values.data(), kRows, kHeads * kWidth}, first, block);
  return block;
}

// Rows of a working block that a tier in `format` would hold.
void ExpectTier(const RowFormat& format, bool norm) {
  const Latents model(norm);
  const LayerBases& bases = model.spec.bases->front();
  const LatentRebuilds folded = RebuildsFromCoordinates(model.heads, bases, 0);
  const std::vector<float> latents = Normal(kRows * kRank, 9);
  CacheMeter meter;
  const CacheBlock working = Working(model, latents, 4, meter);
  const std::vector<float> held = Held(latents, bases, format);
  const LayerCoordinates coordinates(bases, model.spec.layers[0]);
  for (int64_t g = 0; g < kHeads; ++g) {
    const FloatRows keys =
        RebuildKeys({&working}, folded.heads[g], {kRank, &format, KeySteps(bases, format, g)},
                    KeyBasis(coordinates, g));
    for (int64_t t = 0; t < kRows; ++t) {
      const std::vector<double> expected = model.KeyOf(held.data() + t * kRank, 4 + t, g);
      for (int64_t d = 0; d < kWidth; ++d) {
        // A coordinate between two codes may fall on either: rare enough not to occur here.
        ASSERT_NEAR(keys.view(t, d), expected[d], 2e-4 * (1.0 + std::abs(expected[d])))
            << RowFormatName(format) << " row " << t;
      }
    }
  }
}

TEST(LatentCoordinates, KeysAreThoseOfTheCodes) {
  for (const bool norm : {false, true}) {
    for (const RowFormat& format : {kRowsX8, kRowsX4, kRowsX2, MixedRows(12)}) {
      ExpectTier(format, norm);
    }
  }
}

TEST(LatentCoordinates, AllCoordinatesAreExact) {
  const Latents model(false);
  const LayerBases& bases = model.spec.bases->front();
  const LatentRebuilds folded = RebuildsFromCoordinates(model.heads, bases, 0);
  const std::vector<float> latents = Normal(kRows * kRank, 9);
  CacheMeter meter;
  const CacheBlock working = Working(model, latents, 0, meter);
  const LayerCoordinates coordinates(bases, model.spec.layers[0]);
  for (int64_t g = 0; g < kHeads; ++g) {
    const FloatRows expected = RebuildKeys({&working}, model.heads[g]);
    const FloatRows actual =
        RebuildKeys({&working}, folded.heads[g], {kRank}, KeyBasis(coordinates, g));
    for (int64_t i = 0; i < kRows * kWidth; ++i) {
      ASSERT_NEAR(actual.view.data[i], expected.view.data[i], 2e-3);
    }
  }
}

}  // namespace
}  // namespace kvc::runtime
