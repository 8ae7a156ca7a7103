#include "bench/support/attention_problem.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/row_format.h"
#include "tests/support/expect_error.h"

namespace kvc::bench {
namespace {

TEST(AttentionShape, ReadsEveryPart) {
  const bench::AttentionShape shape =
      bench::ParseAttentionShape("heads=9,kv=3,width=64,key=16,tokens=1k,dtype=bf16");
  EXPECT_EQ(shape.query_heads, 9);
  EXPECT_EQ(shape.kv_heads, 3);
  EXPECT_EQ(shape.width, 64);
  EXPECT_EQ(shape.key_width, 16);
  EXPECT_EQ(shape.tokens, 1024);
  EXPECT_EQ(shape.format, kRowsBF16);
  EXPECT_FALSE(shape.rebuild);
  EXPECT_EQ(shape.LayerBytes(), 2 * 1024 * 3 * (16 + 64));
}

TEST(AttentionShape, KeysAreAsWideAsTheHeadUnlessSaid) {
  EXPECT_EQ(bench::ParseAttentionShape("width=80").key_width, 80);
  const bench::AttentionShape latent =
      bench::ParseAttentionShape("kv=3,heads=9,width=64,latent=48,tokens=10");
  EXPECT_TRUE(latent.rebuild);
  // One latent for all heads, a value for each.
  EXPECT_EQ(latent.LayerBytes(), 4 * 10 * (48 + 3 * 64));
}

TEST(AttentionShape, RefusesByName) {
  EXPECT_KVC_ERROR((void)bench::ParseAttentionShape("heads=9,kv=2"), kUsage, "multiple of kv");
  EXPECT_KVC_ERROR((void)bench::ParseAttentionShape("rows=9"), kUsage, "\"rows\"");
  EXPECT_KVC_ERROR((void)bench::ParseAttentionShape("tokens=some"), kUsage, "--shape: tokens");
  EXPECT_KVC_ERROR((void)bench::ParseAttentionShape("tokens=0"), kUsage, "tokens");
  EXPECT_KVC_ERROR((void)bench::ParseAttentionShape("key=8,latent=8"), kUsage, "once");
  EXPECT_KVC_ERROR((void)bench::ParseAttentionShape("width=63,latent=8"), kUsage, "even width");
  EXPECT_KVC_ERROR((void)bench::ParseAttentionShape("dtype=f7"), kUsage, "f7");
  EXPECT_KVC_ERROR((void)bench::ParseAttentionShape("latent=8,dtype=x4"), kUsage, "got x4");
}

// The problem's numbers, in double.
class Reference {
 public:
  Reference(const AttentionShape& shape, int64_t layers) : shape_(shape) {
    keys_ = Numbers(layers * (shape.rebuild ? 1 : shape.kv_heads) * shape.tokens, shape.key_width);
    values_ = Numbers(layers * shape.kv_heads * shape.tokens, shape.width);
  }

  // [D] of every query head that kv head g serves: their queries are the same.
  [[nodiscard]] std::vector<double> Output(int64_t layer, int64_t g) const {
    std::vector<double> weights;
    double sum = 0.0;
    for (int64_t t = 0; t < shape_.tokens; ++t) {
      weights.push_back(std::exp(0.125 * 0.01 * KeySum(layer, g, t)));
      sum += weights.back();
    }
    std::vector<double> output(static_cast<size_t>(shape_.width), 0.0);
    for (int64_t t = 0; t < shape_.tokens; ++t) {
      for (int64_t d = 0; d < shape_.width; ++d) {
        const int64_t row = (layer * shape_.kv_heads + g) * shape_.tokens + t;
        output[d] += weights[t] / sum * values_[row * shape_.width + d];
      }
    }
    return output;
  }

 private:
  [[nodiscard]] std::vector<double> Numbers(int64_t rows, int64_t width) const {
    const std::vector<char> bytes = CheapRows(rows, width, shape_.format);
    std::vector<float> numbers(static_cast<size_t>(rows * width));
    const CheapCode code(shape_.format, width);
    DecodeRows(bytes.data(), shape_.format, RowBytes(shape_.format, width, code.steps()),
               {numbers.data(), rows, width}, code.steps());
    return {numbers.begin(), numbers.end()};
  }

  // Sum over a key's elements as they enter the dot product; every query element is 0.01.
  [[nodiscard]] double KeySum(int64_t layer, int64_t g, int64_t t) const {
    const int64_t heads = shape_.rebuild ? 1 : shape_.kv_heads;
    const double* row =
        keys_.data() +
        ((layer * heads + (shape_.rebuild ? 0 : g)) * shape_.tokens + t) * shape_.key_width;
    double sum = 0.0;
    for (int64_t k = 0; k < shape_.key_width; ++k) sum += row[k];
    if (!shape_.rebuild) return sum;
    // A row of the rebuild is a unit vector or all 0.1; pairs (i, i + D/2) turn by cos 0.6, sin
    // 0.8.
    const int64_t units = shape_.format == kRowsF32 ? shape_.key_width / shape_.kv_heads : 0;
    double turned = 0.0;
    for (int64_t d = 0; d < shape_.width; ++d) {
      const double element = d < units ? row[d] : 0.1 * sum;
      turned += element * (d < shape_.width / 2 ? 0.6 + 0.8 : 0.6 - 0.8);
    }
    return turned;
  }

  AttentionShape shape_;
  std::vector<double> keys_, values_;
};

TEST(AttentionProblem, ComputesEveryLayout) {
  constexpr int64_t kLayers = 3;
  ThreadPool pool(2);
  for (const char* text :
       {"heads=4,kv=2,width=8,tokens=5", "heads=4,kv=2,width=8,key=3,tokens=5",
        "heads=4,kv=2,width=8,latent=6,tokens=5",
        "heads=4,kv=2,width=8,latent=6,tokens=5,dtype=f16",
        "heads=4,kv=2,width=8,tokens=5,dtype=int8", "heads=4,kv=2,width=8,tokens=5,dtype=x4",
        "heads=6,kv=2,width=40,key=32,tokens=300,dtype=avg3",
        "heads=6,kv=1,width=4,tokens=9,dtype=bf16"}) {
    SCOPED_TRACE(text);
    const AttentionShape shape = ParseAttentionShape(text);
    const Reference reference(shape, kLayers);
    AttentionProblem problem(shape, kLayers * shape.LayerBytes());
    for (int64_t step = 0; step < kLayers + 1; ++step) {
      problem.Step(pool);
      for (int64_t h = 0; h < shape.query_heads; ++h) {
        const auto expected =
            reference.Output(step % kLayers, h / (shape.query_heads / shape.kv_heads));
        for (int64_t d = 0; d < shape.width; ++d) {
          EXPECT_NEAR(problem.outputs()[h * shape.width + d], expected[d], 3e-5);
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvc::bench
