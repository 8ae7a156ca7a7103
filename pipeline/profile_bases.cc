#include "pipeline/profile_bases.h"

#include <algorithm>
#include <utility>

#include "factorize/key_basis.h"
#include "model/threads.h"

namespace kvc::pipeline {
namespace {

using linalg::Matrix;

// Upper left [width, width] of head g of x [G, stride, stride].
linalg::Matrix HeadBlock(const std::vector<double>& x, int64_t g, int64_t stride, int64_t width) {
  linalg::Matrix block(width, width);
  for (int64_t r = 0; r < width; ++r) {
    const auto row = x.begin() + (g * stride + r) * stride;
    std::copy(row, row + width, block.data.begin() + r * width);
  }
  return block;
}

double Trace(const linalg::Matrix& a) {
  double sum = 0.0;
  for (int64_t i = 0; i < a.rows; ++i) sum += a(i, i);
  return sum;
}

// A pair of bases [G, stride, stride] that starts as identities.
struct Pair {
  std::vector<float> into, back;
};

Pair IdentityPair(int64_t heads, int64_t stride) {
  std::vector<float> identity(heads * stride * stride, 0.0F);
  for (int64_t i = 0; i < heads * stride; ++i) identity[i * stride + i % stride] = 1.0F;
  return {identity, identity};
}

// Places columns of reduce^T and rebuild into the upper left of head g.
void Place(const factorize::KeyBasis& basis, int64_t g, int64_t stride, Pair& pair) {
  const int64_t width = basis.rebuild.rows;
  for (int64_t d = 0; d < width; ++d) {
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = (g * stride + d) * stride + i;
      pair.into[at] = static_cast<float>(basis.reduce(i, d));
      pair.back[at] = static_cast<float>(basis.rebuild(d, i));
    }
  }
}

}  // namespace

LayerBases MakeBases(const ModelConfig& config,
                     int64_t layer,
                     const profile::LayerGrams& grams,
                     const linalg::Svd& svd) {
  const auto make_pair = [&](const std::vector<double>& covariance,
                             const std::vector<double>& measure, int64_t stride, auto width_of) {
    Pair pair = IdentityPair(grams.num_kv_heads, stride);
    for (int64_t g = 0; g < grams.num_kv_heads; ++g) {
      const linalg::Matrix rows = HeadBlock(covariance, g, stride, width_of(g));
      const linalg::Matrix weight = HeadBlock(measure, g, stride, width_of(g));
      // A dead head needs no order of its dimensions.
      if (!(Trace(rows) > 0.0) || !(Trace(weight) > 0.0)) continue;
      Place(factorize::BalancedLogitBasis(rows, weight, svd), g, stride, pair);
    }
    return pair;
  };
  LayerBases bases;
  bases.num_kv_heads = grams.num_kv_heads;
  bases.key_width = grams.key_width;
  bases.value_width = grams.value_width;
  if (grams.key_width > 0) {
    Pair keys = make_pair(grams.key, grams.query, grams.key_width,
                          [&](int64_t g) { return config.key_width(layer, g); });
    bases.key = std::move(keys.into);
    bases.query = std::move(keys.back);
    bases.key_mean.assign(grams.key_mean.begin(), grams.key_mean.end());
  }
  Pair values = make_pair(grams.value, grams.output, grams.value_width,
                          [&](int64_t) { return grams.value_width; });
  bases.value = std::move(values.into);
  bases.output = std::move(values.back);
  bases.value_mean.assign(grams.value_mean.begin(), grams.value_mean.end());
  return bases;
}

LayerBases MakeBases(const ModelConfig& config, int64_t layer, const profile::LayerGrams& grams) {
  const model::SingleThreadedOperations single;
  const auto svd = linalg::Svd::Create(linalg::SvdBackend::kLapack);
  return MakeBases(config, layer, grams, *svd);
}

}  // namespace kvc::pipeline
