#include "factorize/gradient_noise.h"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "core/io/json.h"
#include "tests/support/expect_error.h"

namespace kvc::factorize {
namespace {

using Gradient = std::vector<double>;

double Dot(const Gradient& a, const Gradient& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// One step of these gradients.
void AddStep(const std::vector<Gradient>& gradients, GradientNoise& noise) {
  Gradient sum(gradients[0].size(), 0.0);
  double squares = 0.0;
  for (const Gradient& gradient : gradients) {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += gradient[i];
    squares += Dot(gradient, gradient);
  }
  noise.Add(std::ssize(gradients), squares, Dot(sum, sum));
}

TEST(GradientNoise, IsTheMeanSquareOverTheMeanProduct) {
  const std::vector<Gradient> first = {{1, 2, 0}, {2, 1, 1}, {0, 3, -1}};
  const std::vector<Gradient> second = {{1, 1, 1}, {3, 0, 2}};
  GradientNoise noise;
  AddStep(first, noise);
  AddStep(second, noise);
  const double square = (5.0 + 6.0 + 10.0 + 3.0 + 13.0) / 5.0;
  const double product = (4.0 + 6.0 + 2.0 + 5.0) / 4.0;  // unordered pairs
  ASSERT_TRUE(noise.Windows().has_value());
  EXPECT_NEAR(*noise.Windows(), square / product, 1e-12);
}

// |G|^2 = 100 with noise of square 300 around it: four windows. The product's standard error is
// about sqrt(2 * 100 * 3 / (500 * 2)) + ..., 1 % of it.
TEST(GradientNoise, FindsTheNoiseThatWasAdded) {
  Rng rng(3);
  GradientNoise noise;
  for (int step = 0; step < 500; ++step) {
    std::vector<Gradient> gradients(4, Gradient(100, 1.0));
    for (Gradient& gradient : gradients) {
      for (double& value : gradient) value += 6.0 * (rng.NextDouble() - 0.5);  // variance 3
    }
    AddStep(gradients, noise);
  }
  EXPECT_NEAR(noise.Windows().value_or(0.0), 4.0, 0.2);
}

TEST(GradientNoise, SaysNothingWhereNothingAgrees) {
  GradientNoise noise;
  EXPECT_FALSE(noise.Windows().has_value());
  AddStep({{1, 2}}, noise);
  EXPECT_FALSE(noise.Windows().has_value());
  AddStep({{1, 0}, {-1, 0}}, noise);
  EXPECT_FALSE(noise.Windows().has_value());
}

TEST(GradientNoise, SurvivesItsState) {
  GradientNoise noise;
  AddStep({{1, 2}, {2, 2}}, noise);
  GradientNoise copy = GradientNoise::FromJson(noise.ToJson(), "state");
  EXPECT_EQ(copy.Windows(), noise.Windows());
  AddStep({{0, 1}, {1, 1}}, noise);
  AddStep({{0, 1}, {1, 1}}, copy);
  EXPECT_EQ(copy.Windows(), noise.Windows());
  EXPECT_KVC_ERROR((void)GradientNoise::FromJson(Json::object(), "state"), kBadInput, "square");
}

}  // namespace
}  // namespace kvc::factorize
