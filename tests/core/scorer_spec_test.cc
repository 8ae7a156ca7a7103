#include "core/cache/scorer_spec.h"

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc {
namespace {

ScorerSpec Parse(const std::string& text) { return ParseScorer(text, "--scorer"); }

TEST(ScorerSpec, TextsAreCanonical) {
  for (const char* text : {"snapkv", "keydiff", "snapkv:pool=5",
                           "expected-attention:future=64,epsilon=0.1,covariance=no", "output-error",
                           "output-error:pool=15,reduce=mean,relative=no,keydiff=0.3",
                           "output-error:future=128,prompt=512,recent=0.1"}) {
    EXPECT_EQ(ToString(Parse(text)), text);
  }
  EXPECT_EQ(ToString(Parse("output-error:recent=.2,keydiff=.30,reduce=max,pool=11,relative=yes")),
            "output-error:keydiff=0.3");
  EXPECT_EQ(Parse("snapkv:pool=7"), ScorerSpec(ScorerKind::kSnapKv));
  EXPECT_NE(Parse("snapkv:pool=11"), ScorerSpec(ScorerKind::kSnapKv));
}

TEST(ScorerSpec, ReadsValues) {
  const ScorerSpec spec = Parse("output-error:pool=13,reduce=mean,relative=no,keydiff=0.25");
  EXPECT_EQ(spec.kind, ScorerKind::kOutputError);
  EXPECT_EQ(spec.options.pool, 13);
  EXPECT_TRUE(spec.options.mean);
  EXPECT_FALSE(spec.options.relative);
  EXPECT_EQ(spec.options.keydiff, 0.25);
}

TEST(ScorerSpec, RefusesByName) {
  const auto refuses = [](const std::string& text, const std::string& what) {
    EXPECT_KVC_ERROR((void)Parse(text), kUsage, what);
  };
  refuses("snapkvv", "output-error");
  refuses("", "snapkv");
  refuses("keydiff:pool=3", "keydiff: expected no options");
  refuses("snapkv:keydiff=0.3", "pool");
  refuses("snapkv:pool", "pool: expected an odd width");
  refuses("snapkv:pool=4", "got \"4\"");
  refuses("snapkv:pool=-3", "odd");
  refuses("snapkv:pool=3x", "odd");
  refuses("snapkv:", "KEY=VALUE");
  refuses("snapkv:pool=3,", "KEY=VALUE");
  refuses("output-error:keydiff=1", "below 1");
  refuses("output-error:keydiff=nan", "below 1");
  refuses("output-error:prompt=-1", "0 or more queries");
  refuses("output-error:recent=1.5", "below 1");
  refuses("snapkv:prompt=5", "pool");
  refuses("output-error:reduce=sum", "max or mean");
  refuses("expected-attention:epsilon=inf", "0 or more");
}

}  // namespace
}  // namespace kvc
