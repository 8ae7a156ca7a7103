// Coordinates of keys and values: calibrated ones, and the principal axes of a prompt.

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "linalg/householder.h"
#include "runtime/cpu/head_basis.h"
#include "tests/runtime/random_bases.h"

namespace kvc::runtime {
namespace {

std::vector<float> Normal(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(rng.NextNormal());
  return values;
}

double Dot(const float* a, const float* b, int64_t width) {
  double sum = 0.0;
  for (int64_t d = 0; d < width; ++d) sum += static_cast<double>(a[d]) * b[d];
  return sum;
}

double MaxDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  return largest;
}

// Rows come back, and logits but for a constant of the query are what they were.
void ExpectExact(const HeadBasis& basis, const float* mean) {
  const int64_t width = basis.width();
  const std::vector<float> x = Normal(5 * width, 1);
  const std::vector<float> q = Normal(3 * width, 2);
  std::vector<float> coordinates(x.size());
  std::vector<float> back(x.size());
  std::vector<float> queries(q.size());
  basis.ToCoordinates({x.data(), 5, width}, {coordinates.data(), 5, width});
  basis.FromCoordinates({coordinates.data(), 5, width}, {back.data(), 5, width});
  basis.ToQueries({q.data(), 3, width}, {queries.data(), 3, width});
  EXPECT_LE(MaxDifference(x, back), 1e-5 * static_cast<double>(width));
  for (int64_t i = 0; i < 3; ++i) {
    const double constant = mean == nullptr ? 0.0 : Dot(q.data() + i * width, mean, width);
    for (int64_t t = 0; t < 5; ++t) {
      const double expected = Dot(q.data() + i * width, x.data() + t * width, width) - constant;
      EXPECT_NEAR(Dot(queries.data() + i * width, coordinates.data() + t * width, width), expected,
                  1e-5 * static_cast<double>(width));
    }
  }
}

TEST(Coordinates, CalibratedOnesAreExact) {
  CacheSpec spec;
  spec.num_heads = 2;
  spec.num_kv_heads = 2;
  spec.head_width = 8;
  spec.layers = {{{6, 8, {0}, false}, {4, 8, {1}, false}}};  // keys of two widths
  const auto bases = testing::RandomBases(spec, 5);
  const LayerCoordinates coordinates(bases->front(), spec.layers[0]);
  for (int64_t head = 0; head < 2; ++head) {
    EXPECT_EQ(KeyBasis(coordinates, head).width(), head == 0 ? 6 : 4);
    ExpectExact(KeyBasis(coordinates, head), bases->front().key_mean.data() + head * 6);
    ExpectExact(ValueBasis(coordinates, head), bases->front().value_mean.data() + head * 8);
  }
}

TEST(Coordinates, LatentsHaveNone) {
  CacheSpec spec;
  spec.num_heads = 2;
  spec.num_kv_heads = 2;
  spec.head_width = 8;
  spec.layers = {{{6, 8, {0, 1}, true}}};
  const auto bases = testing::RandomBases(spec, 5);
  const LayerCoordinates coordinates(bases->front(), spec.layers[0]);
  EXPECT_EQ(KeyBasis(coordinates, 0).width(), 0);
  ExpectExact(ValueBasis(coordinates, 1), bases->front().value_mean.data() + 8);
}

TEST(HeadBasis, ReflectorsAreOrthogonal) {
  for (const int64_t rows : {0, 1, 3, 40}) {
    for (const int64_t count : {0, 1, 4, 12}) {
      const std::vector<float> x = Normal(rows * 12, 7);
      std::vector<float> storage(static_cast<size_t>(count * 12));
      const MatrixF reflectors(storage.data(), count, 12);
      linalg::FindReflectors({x.data(), rows, 12}, reflectors);
      SCOPED_TRACE(::testing::Message() << rows << " rows, " << count << " reflectors");
      ExpectExact(HeadBasis(reflectors), nullptr);
    }
  }
}

}  // namespace
}  // namespace kvc::runtime
