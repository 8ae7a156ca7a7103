#include "pipeline/profile_bases.h"

#include <algorithm>
#include <utility>

#include "factorize/key_basis.h"
#include "model/threads.h"

namespace kvc::pipeline {
namespace {

// Of the metric's mean eigenvalue (factorize::MetricBasis).
constexpr double kRidge = 1e-3;

// Upper left [width, width] of head g of x [G, stride, stride].
linalg::Matrix HeadBlock(const std::vector<double>& x, int64_t g, int64_t stride, int64_t width) {
  linalg::Matrix block(width, width);
  for (int64_t r = 0; r < width; ++r) {
    const auto row = x.begin() + (g * stride + r) * stride;
    std::copy(row, row + width, block.data.begin() + r * width);
  }
  return block;
}

// tr(a b) of symmetric matrices.
double TraceOfProduct(const linalg::Matrix& a, const linalg::Matrix& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.data.size(); ++i) sum += a.data[i] * b.data[i];
  return sum;
}

// Second moments of one head's keys, or values, and the metric of their errors.
struct HeadMoments {
  linalg::Matrix covariance;
  linalg::Matrix metric;
  // What dropping everything costs; 0 where there is nothing to order.
  [[nodiscard]] double Energy() const { return std::max(TraceOfProduct(covariance, metric), 0.0); }
};

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

// Places the basis of a head in which errors count in `unit`, unless it has nothing to order: a
// dead head needs no order of its dimensions.
void PlaceBasis(HeadMoments moments,
                double unit,
                int64_t g,
                int64_t stride,
                const linalg::Svd& svd,
                Pair& pair) {
  if (!(moments.Energy() > 0.0)) return;
  for (double& value : moments.metric.data) value *= unit;
  Place(factorize::MetricBasis(moments.covariance, moments.metric, kRidge, svd), g, stride, pair);
}

}  // namespace

LayerBases MakeBases(const ModelConfig& config,
                     int64_t layer,
                     const profile::LayerGrams& grams,
                     const linalg::Svd& svd) {
  LayerBases bases;
  bases.num_kv_heads = grams.num_kv_heads;
  bases.key_width = grams.key_width;
  bases.value_width = grams.value_width;
  const int64_t groups = config.num_key_groups();  // K
  bases.num_key_groups = groups;
  const int64_t planes = grams.num_kv_heads / groups;  // heads of a key stream
  Pair keys = IdentityPair(groups, grams.key_width);
  Pair values = IdentityPair(grams.num_kv_heads, grams.value_width);
  for (int64_t n = 0; n < groups; ++n) {
    HeadMoments key;
    const int64_t width = grams.key_width > 0 ? config.key_width(layer, n) : 0;
    if (width > 0) {
      key = {HeadBlock(grams.key, n, grams.key_width, width),
             HeadBlock(grams.key_metric, n, grams.key_width, width)};
    }
    double energy = key.Energy();
    std::vector<HeadMoments> of_heads;
    for (int64_t g = n * planes; g < (n + 1) * planes; ++g) {
      of_heads.push_back({HeadBlock(grams.value, g, grams.value_width, grams.value_width),
                          HeadBlock(grams.value_metric, g, grams.value_width, grams.value_width)});
      energy += of_heads.back().Energy();
    }
    const double unit = static_cast<double>(width + planes * grams.value_width) / energy;
    PlaceBasis(key, unit, n, grams.key_width, svd, keys);
    for (int64_t i = 0; i < planes; ++i) {
      PlaceBasis(of_heads[i], unit, n * planes + i, grams.value_width, svd, values);
    }
  }
  if (grams.key_width > 0) {
    bases.key = std::move(keys.into);
    bases.query = std::move(keys.back);
    bases.key_mean.assign(grams.key_mean.begin(), grams.key_mean.end());
  }
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
