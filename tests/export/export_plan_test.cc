#include "export/bundle/export_plan.h"

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::bundle {
namespace {

ExportOptions Options(const std::string& budget = "100%") {
  ExportOptions options;
  options.model = testing::SourceRoot() / "tests" / "golden" / "models" / "llama";
  options.budget = ParseBudget(budget, "--budget");
  options.texts.budget = budget;
  options.sinks = 2;
  options.window = 4;
  return options;
}

TEST(ExportPlan, TheMethodFollowsTheBudgetUnlessItIsSaid) {
  EXPECT_EQ(PlanExport(Options()).cache.spec.method, Method::kFull);
  EXPECT_EQ(PlanExport(Options("60%")).cache.spec.method, Method::kUniform);
  ExportOptions options = Options("60%");
  options.method = Method::kStreaming;
  EXPECT_EQ(PlanExport(options).cache.spec.method, Method::kStreaming);
  const ExportPlan plan = PlanExport(Options("60%"));
  EXPECT_LE(plan.BudgetShare(), 0.6);
  EXPECT_GT(plan.BudgetShare(), 0.4);
}

TEST(ExportPlan, TheReferenceLengthIsWithinTheContext) {
  ExportOptions options = Options();
  const int64_t context = PlanExport(options).checkpoint.config().context_length;
  EXPECT_EQ(PlanExport(options).cache.reference_length, std::min<int64_t>(4096, context));
  options.reference_length = 20;
  EXPECT_EQ(PlanExport(options).cache.reference_length, 20);
  options.reference_length = context + 1;
  EXPECT_KVC_ERROR((void)PlanExport(options), kUsage, "--reference-length");
  options.reference_length = 0;
  EXPECT_KVC_ERROR((void)PlanExport(options), kUsage, "--reference-length");
}

TEST(ExportPlan, RefusesByName) {
  ExportOptions options = Options();
  options.model.clear();
  EXPECT_KVC_ERROR((void)PlanExport(options), kUsage, "MODEL");
  options = Options("60%");
  options.method = Method::kLuKv;
  EXPECT_KVC_ERROR((void)PlanExport(options), kUsage, "expected a profile");
}

TEST(ExportPlan, TheManifestRecordsOptionsAsWritten) {
  ExportOptions options = Options("0.60");
  options.texts.reference_length = "0k5";  // a text is not read again
  options.profile.clear();
  options.SetPolicy("uniform/knorm", {Method::kUniform, ScorerKind::kKnorm, {}, {}, {}});
  const ExportPlan plan = PlanExport(options);
  const Manifest manifest = MakeManifest(plan, options);
  EXPECT_EQ(
      manifest.options.dump(),
      R"({"budget":"0.60","profile":"","method":"","scorer":"snapkv","loss":"importance",)"
      R"("policy":"uniform/knorm","tiers":"","basis":"offline","recent":"auto","dtype":"auto",)"
      R"("cache_dtype":"auto","reference_length":"0k5","sinks":2,"window":4,"verify":true,"seed":42})");
  EXPECT_EQ(manifest.cache.scorer.kind, ScorerKind::kKnorm);
  EXPECT_EQ(manifest.source_name, "llama");
  ASSERT_FALSE(manifest.expected_bytes.empty());
  for (const auto& [length, bytes] : manifest.expected_bytes) {
    EXPECT_EQ(bytes.allocated, PredictBytes(manifest.cache, length).allocated);
    EXPECT_LE(length,
              std::max(plan.checkpoint.config().context_length, plan.cache.reference_length));
  }
}

}  // namespace
}  // namespace kvc::bundle
