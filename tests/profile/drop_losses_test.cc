#include "profile/drop_losses.h"

#include <cmath>
#include <optional>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace kvc::profile {
namespace {

using torch::Tensor;

constexpr int64_t kShare = 2;    // query heads of the kv head
constexpr int64_t kTokens = 9;   // T
constexpr int64_t kQueries = 3;  // the last tokens'
constexpr int64_t kKeyWidth = 5;
constexpr int64_t kValueWidth = 4;
constexpr double kScale = 0.6;

class DropLossesTest : public ::testing::TestWithParam<std::optional<int64_t>> {
 protected:
  void SetUp() override {
    torch::manual_seed(5);
    queries_ = torch::randn({kShare, kQueries, kKeyWidth});
    keys_ = torch::randn({kTokens, kKeyWidth});
    values_ = torch::randn({kTokens, kValueWidth});
    output_ = torch::randn({kShare, 7, kValueWidth}, torch::kFloat64);  // W_O^hT
    weight_ = torch::rand({kQueries}, torch::kFloat64);
  }

  [[nodiscard]] bool Sees(int64_t i, int64_t j) const {
    const int64_t position = kTokens - kQueries + i;
    return j <= position && (!GetParam() || j > position - *GetParam());
  }

  [[nodiscard]] HeadWindow Head(const Tensor& grams) const {
    return {queries_, keys_, values_, grams, weight_, kScale, GetParam()};
  }

  // Output [D_v] of query i of head h without token `dropped`.
  [[nodiscard]] Tensor SlowOutput(int64_t h, int64_t i, int64_t dropped) const {
    Tensor sum = torch::zeros({kValueWidth}, torch::kFloat64);
    double total = 0.0;
    for (int64_t j = 0; j < kTokens; ++j) {
      if (j == dropped || !Sees(i, j)) continue;
      double logit = 0.0;
      for (int64_t d = 0; d < kKeyWidth; ++d) {
        logit += kScale * queries_[h][i][d].item<double>() * keys_[j][d].item<double>();
      }
      total += std::exp(logit);
      sum += std::exp(logit) * values_[j].to(torch::kFloat64);
    }
    return sum / total;
  }

  Tensor queries_, keys_, values_, output_, weight_;
};

TEST_P(DropLossesTest, IsTheErrorOfDroppingEachTokenAlone) {
  // Grams are given in float, as the collector's are.
  const Tensor grams = torch::bmm(output_.transpose(1, 2), output_).to(torch::kFloat32);
  const Tensor losses = DropLosses(Head(grams));  // [T]
  ASSERT_EQ(losses.sizes(), torch::IntArrayRef({kTokens}));
  for (int64_t j = 0; j < kTokens; ++j) {
    double expected = 0.0;
    for (int64_t h = 0; h < kShare; ++h) {
      for (int64_t i = 0; i < kQueries; ++i) {
        const Tensor moved = SlowOutput(h, i, j) - SlowOutput(h, i, -1);
        const double error = torch::mv(output_[h], moved).square().sum().item<double>();
        expected += weight_[i].item<double>() * error / kShare;
      }
    }
    EXPECT_NEAR(losses[j].item<double>(), expected, 1e-5 * (1.0 + expected)) << "token " << j;
  }
}

TEST_P(DropLossesTest, IsFiniteWhereATokenHasAllAttention) {
  keys_[kTokens - kQueries] = 1000.0 * queries_[0][0];
  const Tensor losses =
      DropLosses(Head(torch::bmm(output_.transpose(1, 2), output_).to(torch::kFloat32)));
  EXPECT_TRUE(losses.isfinite().all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Windows,
                         DropLossesTest,
                         ::testing::Values(std::optional<int64_t>(), std::optional<int64_t>(4)));

}  // namespace
}  // namespace kvc::profile
