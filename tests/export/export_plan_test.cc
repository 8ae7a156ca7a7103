#include "export/bundle/export_plan.h"

#include <gtest/gtest.h>

#include "core/cache/tier_list.h"
#include "core/io/json.h"
#include "tests/runtime/random_bases.h"
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

// A profile of the model of Options(), with curves of two scorers; the second is listed first.
void WriteTestProfile(const std::filesystem::path& directory, const std::string& tiers) {
  const ExportPlan full = PlanExport(Options());
  const CacheSpec& cache = full.cache.spec;
  ProfileData profile;
  profile.model_sha256 = ModelDigest(Options().model);
  profile.num_layers = cache.num_layers();
  profile.num_kv_heads = cache.num_kv_heads;
  profile.context = 64;
  profile.options = {{"scorers", {"output-error:prompt=32", "snapkv"}}};
  const auto heads = static_cast<size_t>(profile.num_layers * profile.num_kv_heads);
  for (const char* name : {"output-error:prompt=32", "snapkv"}) {
    const ScorerSpec scorer = ParseScorer(name, "");
    std::vector<float>& curve = profile.curves[scorer];
    for (size_t i = 0; i < heads * (kCurveIntervals + 1); ++i) {
      curve.push_back(1.0F / static_cast<float>(i % (kCurveIntervals + 1) + 1));
    }
    profile.error_curves[scorer] = profile.mixed_curves[scorer] = profile.oracle_curve = curve;
  }
  profile.tiers = ParseTiers(tiers, "");
  profile.importance_method = "oracle";
  profile.importance.assign(heads, 1.0F / static_cast<float>(heads));
  profile.bases = *testing::RandomBases(cache, 3);
  std::filesystem::create_directories(directory);
  WriteProfile(directory, profile);
}

TEST(ExportPlan, AProfileBringsItsScorerAndItsTiersInFewBits) {
  const testing::TempDir directory;
  ExportOptions options = Options("60%");
  options.profile = directory.path() / "bits";
  WriteTestProfile(options.profile, "1x8,1x4,1x2");
  const CacheSpec bits = PlanExport(options).cache.spec;
  EXPECT_EQ(bits.method, Method::kLuKvMixed);
  EXPECT_EQ(ToString(bits.scorer), "output-error:prompt=32");
  EXPECT_EQ(bits.tiers.size(), 4U);
  options.scorer = ScorerKind::kSnapKv;
  EXPECT_EQ(PlanExport(options).cache.spec.scorer.kind, ScorerKind::kSnapKv);
  options.scorer.reset();
  options.tiers = ParseTiers("0,1", "");  // others than the profile's
  EXPECT_EQ(PlanExport(options).cache.spec.method, Method::kLuKv);
  options.tiers.clear();
  options.profile = directory.path() / "dimensions";
  WriteTestProfile(options.profile, "0,1/2,1");
  EXPECT_EQ(PlanExport(options).cache.spec.method, Method::kLuKv);
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
      R"({"budget":"0.60","profile":"","method":"","scorer":"auto","loss":"auto",)"
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
