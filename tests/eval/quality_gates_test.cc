#include "eval/compare/quality_gates.h"

#include <cmath>

#include <gtest/gtest.h>

namespace kvc::eval {
namespace {

// Every limit, kept by AllMeasured.
QualityGates AllGates() {
  QualityGates gates;
  gates.max_ppl = 20.0;
  gates.max_ppl_increase = 0.1;
  gates.max_kld = 0.5;
  gates.min_same_top = 0.9;
  gates.min_needle = 1.0;
  gates.min_score = 0.25;
  return gates;
}

MeasuredQuality AllMeasured() {
  MeasuredQuality measured;
  measured.perplexity = 11.0;
  measured.reference_perplexity = 10.5;
  measured.kld_mean = 0.5;
  measured.same_top = 0.95;
  measured.needle_accuracy = 1.0;
  measured.score = 0.25;
  return measured;
}

TEST(QualityGates, ChecksWhatIsSetAndNothingElse) {
  EXPECT_TRUE(CheckGates({}, AllMeasured()).empty());
  const auto results = CheckGates(AllGates(), AllMeasured(), "line");
  ASSERT_EQ(results.size(), 6U);
  EXPECT_TRUE(AllPassed(results));
  const char* names[] = {"max-ppl",      "max-ppl-increase", "max-kld",
                         "min-same-top", "min-needle",       "min-score"};
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].name, names[i]);
    EXPECT_EQ(results[i].line, "line");
    EXPECT_EQ(results[i].reason, "");
  }
  EXPECT_DOUBLE_EQ(*results[1].value, 11.0 / 10.5 - 1.0);
  EXPECT_DOUBLE_EQ(results[2].limit, 0.5);
}

TEST(QualityGates, EachLimitFailsOnItsOwnSide) {
  const auto failed = [](const MeasuredQuality& measured) {
    std::vector<std::string> names;
    for (const GateResult& result : CheckGates(AllGates(), measured)) {
      if (!result.passed) names.push_back(result.name);
    }
    return names;
  };
  using Names = std::vector<std::string>;
  MeasuredQuality measured = AllMeasured();
  measured.perplexity = 21.0;
  measured.reference_perplexity = 20.5;
  EXPECT_EQ(failed(measured), Names{"max-ppl"});
  measured = AllMeasured();
  measured.reference_perplexity = 9.0;
  EXPECT_EQ(failed(measured), Names{"max-ppl-increase"});
  measured = AllMeasured();
  measured.kld_mean = 0.500001;
  EXPECT_EQ(failed(measured), Names{"max-kld"});
  measured = AllMeasured();
  measured.same_top = 0.89;
  EXPECT_EQ(failed(measured), Names{"min-same-top"});
  measured = AllMeasured();
  measured.needle_accuracy = 0.99;
  EXPECT_EQ(failed(measured), Names{"min-needle"});
  measured = AllMeasured();
  measured.score = 0.2;
  EXPECT_EQ(failed(measured), Names{"min-score"});
}

TEST(QualityGates, WhatWasNotMeasuredFails) {
  const auto results = CheckGates(AllGates(), {});
  ASSERT_EQ(results.size(), 6U);
  for (const GateResult& result : results) {
    EXPECT_FALSE(result.passed) << result.name;
    EXPECT_FALSE(result.value) << result.name;
    EXPECT_TRUE(result.reason.starts_with("not measured: expected ")) << result.reason;
  }
  MeasuredQuality measured = AllMeasured();
  measured.kld_mean = std::nan("");
  EXPECT_FALSE(CheckGates(AllGates(), measured)[2].passed);
  EXPECT_FALSE(AllPassed(CheckGates(AllGates(), measured)));
}

TEST(QualityGates, WhatCouldNotRunMissesEveryLimit) {
  const auto results = FailGates(AllGates(), "lukv 3%", "no room");
  ASSERT_EQ(results.size(), 6U);
  EXPECT_FALSE(AllPassed(results));
  EXPECT_EQ(results[0].line, "lukv 3%");
  EXPECT_EQ(results[0].reason, "not measured: no room");
  EXPECT_TRUE(FailGates({}, "lukv 3%", "no room").empty());
}

TEST(QualityGates, NeedlesAndTasksOfWhichNoneWasAskedSayNothing) {
  MeasuredQuality measured;
  measured.Set(NeedleResult{});
  measured.Set(TaskScores{});
  EXPECT_FALSE(measured.needle_accuracy);
  EXPECT_FALSE(measured.score);
  measured.Set(TaskScores{0.5, {{"single", 0, 1, 0.5, 0.0}}});
  EXPECT_EQ(measured.score, 0.5);
}

}  // namespace
}  // namespace kvc::eval
