#include "pipeline/profile_bases.h"

#include <algorithm>

#include <gtest/gtest.h>
#include <torch/types.h>

#include "core/base/error.h"

namespace kvc::pipeline {
namespace {

using torch::Tensor;

constexpr int64_t kHeads = 2;
constexpr int64_t kKeyWidth = 6;
constexpr int64_t kValueWidth = 5;
constexpr int64_t kRows = 200;

// What the grams of one head are made of.
struct Rows {
  Tensor keys;    // [n, D_k]
  Tensor query;   // [m, D_k]
  Tensor values;  // [n, D_v]
  Tensor output;  // [D_v, E]: W_O^T of the group's heads, side by side
};

// Rows with correlated dimensions of very different sizes and a large mean.
Tensor RandomRows(int64_t count, int64_t width) {
  const Tensor mix = torch::randn({width, width}, torch::kFloat64) *
                     torch::logspace(0, -1, width, 10, torch::kFloat64);
  return torch::mm(torch::randn({count, width}, torch::kFloat64), mix) + 3.0;
}

Rows MakeRows(int64_t key_width) {
  const auto pad = [&](const Tensor& x) {
    return torch::constant_pad_nd(x, {0, kKeyWidth - key_width}, 0);
  };
  return {pad(RandomRows(kRows, key_width)), pad(RandomRows(kRows / 2, key_width)),
          RandomRows(kRows, kValueWidth), torch::randn({kValueWidth, 12}, torch::kFloat64)};
}

void Append(const Tensor& x, std::vector<double>& to) {
  const Tensor dense = x.contiguous();
  to.insert(to.end(), dense.data_ptr<double>(), dense.data_ptr<double>() + dense.numel());
}

Tensor Centred(const Tensor& x) { return x - x.mean(0, true); }

profile::LayerGrams GramsOf(const std::vector<Rows>& heads) {
  profile::LayerGrams grams;
  grams.num_kv_heads = kHeads;
  grams.key_width = kKeyWidth;
  grams.value_width = kValueWidth;
  for (const Rows& head : heads) {
    const Tensor keys = Centred(head.keys);
    const Tensor values = Centred(head.values);
    Append(torch::mm(keys.t(), keys) / kRows, grams.key);
    Append(head.keys.mean(0), grams.key_mean);
    Append(torch::mm(head.query.t(), head.query) / kRows, grams.key_metric);
    Append(torch::mm(values.t(), values) / kRows, grams.value);
    Append(head.values.mean(0), grams.value_mean);
    Append(torch::mm(head.output, head.output.t()), grams.value_metric);
  }
  return grams;
}

// The second head's keys are thinner.
ModelConfig ThinConfig() {
  ModelConfig config;
  config.num_layers = 1;
  config.num_kv_heads = kHeads;
  config.num_heads = kHeads;
  config.head_width = kValueWidth;
  config.keys.layout = KeyLayout::kPostRope;
  config.keys.num_groups = kHeads;
  config.keys.ranks = {{kKeyWidth, 4}};
  return config;
}

Tensor Block(const std::vector<float>& basis, int64_t head, int64_t width) {
  return torch::tensor(basis, torch::kFloat32)
      .view({kHeads, width, width})[head]
      .to(torch::kFloat64);
}

// The best that rank r can do for x y^T: what lies behind its first r singular values.
double Optimum(const Tensor& product, int64_t rank) {
  const Tensor s = torch::linalg_svdvals(product);
  return s.narrow(0, rank, s.size(0) - rank).square().sum().item<double>();
}

class ProfileBases : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(5);
    rows_ = {MakeRows(kKeyWidth), MakeRows(4)};
    const auto svd = linalg::Svd::Create(linalg::SvdBackend::kLapack);
    bases_ = {pipeline::MakeBases(ThinConfig(), 0, GramsOf(rows_), *svd)};
  }

  std::vector<Rows> rows_;
  std::vector<LayerBases> bases_;
};

// The ridge under a metric, a thousandth of its mean eigenvalue, costs at most that times the rows'
// whole variance.
double RidgeCost(const Tensor& asked, const Tensor& rows, int64_t width) {
  return 1e-3 / static_cast<double>(width) *
         (asked.square().sum() * rows.square().sum()).item<double>();
}

TEST_F(ProfileBases, EveryPrefixIsTheBestLogitOfItsSize) {
  EXPECT_NO_THROW(CheckBases(bases_));
  for (int64_t g = 0; g < kHeads; ++g) {
    const Tensor key = Block(bases_[0].key, g, kKeyWidth);
    const Tensor query = Block(bases_[0].query, g, kKeyWidth);
    const Tensor mean = torch::tensor(bases_[0].key_mean).view({kHeads, kKeyWidth})[g];
    const Tensor keys = rows_[g].keys - mean.to(torch::kFloat64);
    const Tensor exact = torch::mm(keys, rows_[g].query.t());  // [n, m]
    const int64_t width = g == 0 ? kKeyWidth : 4;
    for (int64_t r = 0; r < width; ++r) {
      const Tensor stored = torch::mm(keys, key.narrow(1, 0, r));             // [n, r]
      const Tensor asked = torch::mm(rows_[g].query, query.narrow(1, 0, r));  // [m, r]
      const double loss = (exact - torch::mm(stored, asked.t())).square().sum().item<double>();
      const double optimum = Optimum(exact, r);
      EXPECT_GE(loss, optimum * (1 - 1e-5)) << "head " << g << " rank " << r;
      EXPECT_LE(loss, optimum + RidgeCost(rows_[g].query, keys, width))
          << "head " << g << " rank " << r;
    }
  }
}

TEST_F(ProfileBases, EveryPrefixIsTheBestOutputOfItsSize) {
  for (int64_t g = 0; g < kHeads; ++g) {
    const Tensor into = Block(bases_[0].value, g, kValueWidth);
    const Tensor back = Block(bases_[0].output, g, kValueWidth);
    const Tensor mean = torch::tensor(bases_[0].value_mean).view({kHeads, kValueWidth})[g];
    const Tensor values = rows_[g].values - mean.to(torch::kFloat64);
    const Tensor exact = torch::mm(values, rows_[g].output);  // [n, E]
    for (int64_t r = 0; r < kValueWidth; ++r) {
      const Tensor rebuilt =
          torch::mm(torch::mm(values, into.narrow(1, 0, r)), back.narrow(1, 0, r).t());
      const double loss =
          (exact - torch::mm(rebuilt, rows_[g].output)).square().sum().item<double>();
      const double optimum = Optimum(exact, r);
      EXPECT_GE(loss, optimum * (1 - 1e-5)) << "head " << g << " rank " << r;
      EXPECT_LE(loss, optimum + RidgeCost(rows_[g].output, values, kValueWidth))
          << "head " << g << " rank " << r;
    }
  }
}

// Errors of one size cost the same in every coordinate of a head's keys and values, and what
// dropping a coordinate costs has the mean 1.
TEST_F(ProfileBases, CoordinatesOfAHeadCountInOneUnit) {
  for (int64_t g = 0; g < kHeads; ++g) {
    const int64_t width = g == 0 ? kKeyWidth : 4;
    const Tensor query = Block(bases_[0].query, g, kKeyWidth);
    const Tensor output = Block(bases_[0].output, g, kValueWidth);
    // What an error of one in a coordinate does to the logits, and to the outputs.
    const Tensor of_keys =
        torch::mm(rows_[g].query, query).square().sum(0).narrow(0, 0, width) / kRows;
    const Tensor of_values = torch::mm(rows_[g].output.t(), output).square().sum(0);
    const Tensor keys = torch::mm(Centred(rows_[g].keys), Block(bases_[0].key, g, kKeyWidth));
    const Tensor values =
        torch::mm(Centred(rows_[g].values), Block(bases_[0].value, g, kValueWidth));
    const double unit = of_values[0].item<double>();
    // But for the ridge, which coordinates that nothing asks for feel.
    EXPECT_NEAR(of_keys[0].item<double>() / unit, 1.0, 0.05);
    EXPECT_NEAR(of_values[1].item<double>() / unit, 1.0, 0.05);
    const double energy = (keys.square().sum() + values.square().sum()).item<double>() / kRows;
    EXPECT_NEAR(energy / static_cast<double>(width + kValueWidth), 1.0, 0.2);
  }
}

TEST_F(ProfileBases, ThinnerHeadIsTheIdentityBehindItsWidth) {
  for (const std::vector<float>* basis : {&bases_[0].key, &bases_[0].query}) {
    const Tensor block = Block(*basis, 1, kKeyWidth);
    const Tensor rest = torch::eye(kKeyWidth, torch::kFloat64).narrow(0, 4, 2);
    EXPECT_TRUE(torch::equal(block.narrow(0, 4, 2), rest));
    EXPECT_TRUE(torch::equal(block.narrow(1, 4, 2), rest.t()));
  }
}

TEST_F(ProfileBases, DeadHeadKeepsTheIdentity) {
  rows_[1].values.zero_();
  rows_[1].query.zero_();
  const auto svd = linalg::Svd::Create(linalg::SvdBackend::kEigen);
  const std::vector<LayerBases> bases = {
      pipeline::MakeBases(ThinConfig(), 0, GramsOf(rows_), *svd)};
  EXPECT_NO_THROW(CheckBases(bases));
  EXPECT_TRUE(
      torch::equal(Block(bases[0].key, 1, kKeyWidth), torch::eye(kKeyWidth, torch::kFloat64)));
  EXPECT_TRUE(torch::equal(Block(bases[0].value, 1, kValueWidth),
                           torch::eye(kValueWidth, torch::kFloat64)));
}

TEST_F(ProfileBases, LatentsHaveValueBasesOnly) {
  profile::LayerGrams grams = GramsOf(rows_);
  grams.key_width = 0;
  grams.key.clear();
  grams.key_mean.clear();
  grams.key_metric.clear();
  const auto svd = linalg::Svd::Create(linalg::SvdBackend::kLapack);
  const std::vector<LayerBases> bases = {pipeline::MakeBases(ThinConfig(), 0, grams, *svd)};
  EXPECT_NO_THROW(CheckBases(bases));
  EXPECT_TRUE(bases[0].key.empty());
  // The same columns in another unit: there are no keys whose errors it is shared with.
  for (int64_t g = 0; g < kHeads; ++g) {
    const Tensor own = Block(bases[0].value, g, kValueWidth);
    const Tensor other = Block(bases_[0].value, g, kValueWidth);
    EXPECT_TRUE(torch::allclose(own / own.norm(), other / other.norm(), 1e-5, 1e-6));
  }
}

}  // namespace
}  // namespace kvc::pipeline
