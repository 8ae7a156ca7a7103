// Policies compared on a golden model: who takes part, what is measured, and going on.

#include "pipeline/choose/comparison.h"

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/runtime/test_bundles.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::choose {
namespace {

NamedBudget BudgetOf(const std::string& text) { return {text, ParseBudget(text, "--budget")}; }

class ComparisonTest : public ::testing::Test {
 protected:
  ComparisonTest() : pool_(2) {
    tokenizer_ = Tokenizer::Load(testing::SourceRoot() / "examples" / "models" / "needle-llama");
    std::filesystem::create_directory(directory_ / "full");
    testing::WriteBundle(testing::GoldenModel("llama"), directory_ / "full");
    request_.reference = directory_ / "full";
    request_.bases = {{directory_ / "full", {budget::ParsePolicy("uniform/snapkv")}}};
    request_.budgets = {BudgetOf("60%")};
    request_.sinks = 2;
    request_.window = 4;
    Rng rng(7);
    tasks_.walk = {.context = 48, .decode = 6};
    tasks_.samples.resize(2);
    for (auto& sample : tasks_.samples) {
      for (int i = 0; i < 54; ++i) sample.push_back(static_cast<int32_t>(rng.NextBelow(96)));
    }
  }

  Comparison Run(const std::filesystem::path& progress_file = {}) {
    NoProgress silent;
    return RunComparison(request_, tasks_, *tokenizer_, progress_file, pool_, silent);
  }

  testing::TempDir directory_;
  ThreadPool pool_;
  std::unique_ptr<Tokenizer> tokenizer_;
  CompareRequest request_;
  CompareTasks tasks_;
};

TEST_F(ComparisonTest, MeasuresEveryContestantAgainstTheFirst) {
  const Comparison comparison = Run();
  ASSERT_EQ(comparison.lines.size(), 2U);
  EXPECT_EQ(comparison.samples, 2);
  const ComparisonLine& reference = comparison.lines[0];
  EXPECT_EQ(reference.name, "full");
  EXPECT_EQ(reference.policy, "");
  EXPECT_EQ(reference.method, Method::kFull);
  EXPECT_EQ(reference.text->divergence.kld_mean, 0.0);
  EXPECT_EQ(reference.text->divergence.same_top, 1.0);
  const ComparisonLine& line = comparison.lines[1];
  EXPECT_EQ(line.name, "uniform/snapkv");
  EXPECT_EQ(line.budget, "60%");
  EXPECT_EQ(line.bundle, "full");
  EXPECT_EQ(line.method, Method::kUniform);
  EXPECT_GT(line.text->divergence.kld_mean, 0.0);
  EXPECT_LE(line.text->prompt_share, 0.6);
  EXPECT_EQ(line.text->divergence.model.tokens, 12);
  EXPECT_FALSE(line.needles);
  EXPECT_FALSE(line.ruler);
}

TEST_F(ComparisonTest, NamesImpossiblePoliciesAndFailsTheirGates) {
  request_.budgets.push_back(BudgetOf("1%"));
  const Comparison comparison = Run();
  EXPECT_EQ(comparison.lines.size(), 2U);
  ASSERT_EQ(comparison.impossible.size(), 1U);
  EXPECT_EQ(comparison.impossible[0].name, "uniform/snapkv");
  EXPECT_EQ(comparison.impossible[0].budget, "1%");
  EXPECT_NE(comparison.impossible[0].reason.find("expected at least"), std::string::npos);
  EXPECT_TRUE(CheckGates({}, comparison).empty());
  eval::QualityGates gates;
  gates.max_kld = 1e9;
  gates.max_ppl_increase = 1e9;
  const auto results = CheckGates(gates, comparison);
  ASSERT_EQ(results.size(), 4U);
  EXPECT_TRUE(results[0].passed);
  EXPECT_TRUE(results[1].passed);
  EXPECT_EQ(results[1].line, "uniform/snapkv 60%");
  EXPECT_FALSE(results[2].passed);
  EXPECT_FALSE(results[3].passed);
  EXPECT_EQ(results[3].line, "uniform/snapkv 1%");
  // Nobody asked for needles.
  gates = {};
  gates.min_needle = 0.0;
  EXPECT_FALSE(eval::AllPassed(CheckGates(gates, comparison)));
}

TEST_F(ComparisonTest, GoesOnFromItsProgressFile) {
  const std::filesystem::path file = directory_ / "out.partial";
  const Comparison whole = Run();
  const Comparison first = Run(file);
  ASSERT_TRUE(std::filesystem::exists(file));
  const auto written = std::filesystem::last_write_time(file);
  const Comparison again = Run(file);
  EXPECT_EQ(std::filesystem::last_write_time(file), written);  // nothing was left to measure
  for (size_t i = 0; i < whole.lines.size(); ++i) {
    EXPECT_EQ(first.lines[i].text->divergence.kld_mean, whole.lines[i].text->divergence.kld_mean);
    EXPECT_EQ(again.lines[i].text->divergence.kld_mean, whole.lines[i].text->divergence.kld_mean);
    EXPECT_EQ(again.lines[i].text->prompt_share, whole.lines[i].text->prompt_share);
  }
  request_.budgets = {BudgetOf("70%")};
  EXPECT_KVC_ERROR((void)Run(file), kUsage, "of another one");
  request_.budgets = {BudgetOf("60%")};
  tasks_.samples[0][3] ^= 1;
  EXPECT_KVC_ERROR((void)Run(file), kUsage, "of another one");
}

TEST_F(ComparisonTest, BundlesOfTheSameWeightsShareASession) {
  std::filesystem::create_directory(directory_ / "copy");
  testing::WriteBundle(testing::GoldenModel("llama"), directory_ / "copy");
  request_.bundles = {directory_ / "copy"};
  request_.bases.push_back({directory_ / "copy", {budget::ParsePolicy("streaming")}});
  const Contestants contestants = LoadContestants(request_, pool_);
  std::vector<std::string> names;
  for (const ContestantRecord& record : contestants.records) names.push_back(record.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"full", "copy", "full/uniform/snapkv", "copy/streaming"}));
  EXPECT_EQ(contestants.bundles.size(), 2U);
  EXPECT_EQ(contestants.sessions.size(), 1U);
  EXPECT_NE(contestants.records[0].cache_sha256, contestants.records[2].cache_sha256);
}

TEST_F(ComparisonTest, RefusesByName) {
  request_.budgets = {BudgetOf("1%")};
  EXPECT_KVC_ERROR((void)Run(), kInfeasible, "--budget 1%");
  request_.bases.clear();
  EXPECT_KVC_ERROR((void)Run(), kUsage, "to compare with the reference");
}

}  // namespace
}  // namespace kvc::choose
