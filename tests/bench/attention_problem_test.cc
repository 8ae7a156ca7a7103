#include "bench/support/attention_problem.h"

#include <gtest/gtest.h>

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
  EXPECT_EQ(shape.dtype, DType::kBF16);
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
}

TEST(AttentionProblem, StepsThroughEveryLayout) {
  ThreadPool pool(2);
  for (const char* text : {"heads=4,kv=2,width=8,tokens=5", "heads=4,kv=2,width=8,key=3,tokens=5",
                           "heads=4,kv=2,width=8,latent=6,tokens=5,dtype=f16"}) {
    const bench::AttentionShape shape = bench::ParseAttentionShape(text);
    bench::AttentionProblem problem(shape, 3 * shape.LayerBytes());
    for (int i = 0; i < 4; ++i) EXPECT_NO_THROW(problem.Step(pool)) << text;
  }
}

}  // namespace
}  // namespace kvc::bench
