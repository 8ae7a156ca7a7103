#include "profile/code_steps.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/base/row_format.h"
#include "core/cache/cache_bases.h"
#include "tests/support/expect_error.h"

namespace kvc::profile {
namespace {

// Squared error of a column in codes of a format with this step, by the codec itself.
double ErrorOf(const std::vector<float>& column, const RowFormat& format, float step) {
  double sum = 0.0;
  char byte[4];
  for (const float x : column) {
    float back = 0.0F;
    EncodeRows({&x, 1, 1}, format, byte, 4, &step);
    DecodeRows(byte, format, 4, {&back, 1, 1}, &step);
    sum += (static_cast<double>(back) - x) * (static_cast<double>(back) - x);
  }
  return sum;
}

// Columns that differ in scale and in shape: normal, uniform, heavy tails, one-sided.
std::vector<std::vector<float>> Columns(Rng& rng, int64_t rows) {
  std::vector<std::vector<float>> columns(4);
  for (int64_t t = 0; t < rows; ++t) {
    const double normal = rng.NextNormal();
    columns[0].push_back(static_cast<float>(100.0 * normal));
    columns[1].push_back(static_cast<float>(rng.NextDouble() - 0.5));
    columns[2].push_back(static_cast<float>(1e-3 * normal * normal * normal));
    columns[3].push_back(static_cast<float>(std::abs(rng.NextNormal())));
  }
  return columns;
}

std::vector<float> Interleaved(const std::vector<std::vector<float>>& columns) {
  std::vector<float> rows;
  for (size_t t = 0; t < columns[0].size(); ++t) {
    for (const std::vector<float>& column : columns) rows.push_back(column[t]);
  }
  return rows;
}

TEST(CodeSteps, AreTheBestOfAFineSearch) {
  Rng rng(1);
  const auto columns = Columns(rng, 500);
  const std::vector<float> rows = Interleaved(columns);
  const auto [steps, errors] = FitSteps({rows.data(), 500, 4});
  ASSERT_EQ(steps.size(), 12U);
  ASSERT_EQ(errors.size(), 16U);
  for (size_t f = 1; f < kStepFormats.size(); ++f) {
    for (size_t c = 0; c < columns.size(); ++c) {
      const float fitted = steps[f * 4 + c];
      const double error = ErrorOf(columns[c], kStepFormats[f], fitted);
      double least = std::numeric_limits<double>::infinity();
      for (double factor = 0.2; factor < 5.0; factor *= 1.01) {
        const auto step = static_cast<float>(fitted * factor);
        least = std::min(least, ErrorOf(columns[c], kStepFormats[f], step));
      }
      EXPECT_NEAR(500.0 * errors[f * 4 + c], error, 1e-4 * error);
      EXPECT_LE(error, 1.03 * least) << RowFormatName(kStepFormats[f]) << ", column " << c;
    }
  }
}

// Of 8 bits the codec's own error; without bits the whole column's.
TEST(CodeSteps, KnowTheErrorsOfEightBitsAndOfNone) {
  Rng rng(2);
  const auto columns = Columns(rng, 300);
  const std::vector<float> rows = Interleaved(columns);
  const auto [steps, errors] = FitSteps({rows.data(), 300, 4});
  for (size_t c = 0; c < columns.size(); ++c) {
    const double eight = ErrorOf(columns[c], kRowsX8, steps[c]);
    EXPECT_NEAR(300.0 * errors[c], eight, 1e-3 * eight);
    double none = 0.0;
    for (const float x : columns[c]) none += static_cast<double>(x) * x;
    EXPECT_NEAR(300.0 * errors[12 + c], none, 1e-4 * none);
  }
}

TEST(CodeSteps, EightBitsLeaveRoomAboveTheLargest) {
  const std::vector<float> rows = {1.0F, -8.0F, 2.0F, 3.0F};
  const std::vector<float> steps = FitSteps({rows.data(), 2, 2}).steps;
  EXPECT_FLOAT_EQ(steps[0], 1.25F * 2.0F / 128.0F);
  EXPECT_FLOAT_EQ(steps[1], 1.25F * 8.0F / 128.0F);
}

TEST(CodeSteps, ColumnsOfZerosStayZeros) {
  const std::vector<float> rows(6, 0.0F);
  for (const float step : FitSteps({rows.data(), 3, 2}).steps) {
    EXPECT_GT(step, 0.0F);
    EXPECT_LE(step, 1e-30F);
  }
}

TEST(CodeSteps, RefusesWhatIsNotFinite) {
  const std::vector<float> rows = {0.0F, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_KVC_ERROR((void)FitSteps({rows.data(), 1, 2}), kNumeric, "finite");
  EXPECT_KVC_ERROR((void)FitSteps({rows.data(), 0, 2}), kBadShape, "expected rows");
}

}  // namespace
}  // namespace kvc::profile
