#include "export/bundle/reference_logits.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/progress.h"
#include "core/base/thread_pool.h"
#include "core/checkpoint/model_config.h"
#include "core/io/json.h"
#include "export/bundle/export_bundle.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::bundle {
namespace {

TEST(VerificationTolerances, FollowWhatTheSourceItselfRounds) {
  bundle::ReferenceLogits reference{
      {1, 2, 3}, {0.0F, 30.0F, -40.0F, 1.0F, 2.0F, 3.0F}, {0.0F, 5e-5F, 5e-4F}};
  CacheGeometry cache;
  cache.layers = {{{16, 8, {0}, false}}, {{64, 8, {0}, false}}};
  EXPECT_EQ(bundle::VerificationTolerances(DType::kF32, cache, reference),
            (std::vector<double>{1e-3, 1e-3, 16.0 * double{5e-4F}}));
  // A rounding of f16 is 2^13 of float's.
  EXPECT_EQ(bundle::VerificationTolerances(DType::kF16, cache, reference),
            (std::vector<double>{4e-3 * 40.0, 0x1p13 * double{5e-5F}, 0x1p13 * double{5e-4F}}));
  // The coarsest of weights, keys and values decides.
  cache.value_format = kRowsBF16;
  EXPECT_EQ(bundle::VerificationTolerances(DType::kF16, cache, reference),
            (std::vector<double>{3e-2 * 40.0, 0x1p16 * double{5e-5F}, 0x1p16 * double{5e-4F}}));
  cache.key_format = kRowsInt8;
  const std::vector<double> coarse = bundle::VerificationTolerances(DType::kF16, cache, reference);
  EXPECT_DOUBLE_EQ(coarse[0], 1e-1 * 40.0);
  EXPECT_NEAR(coarse[2], std::sqrt(2.0 * std::log(128.0)) / 254.0 * 0x1p24 * double{5e-4F}, 1e-6);
}

TEST(VerificationIds, StayWhereTheLengthTurnsNothing) {
  const auto models = testing::SourceRoot() / "tests/golden/models";
  const auto count = [&](const char* name) {
    return bundle::VerificationIds(ReadModelConfig(models / name)).size();
  };
  EXPECT_EQ(count("llama"), 32U);
  EXPECT_EQ(count("mistral-longrope"), 24U);  // its original context
}

TEST(NarrowedWindows, WhereTheTokensDoNotFillAWindow) {
  const auto models = testing::SourceRoot() / "tests/golden/models";
  const auto narrowed = [&](const char* name, int64_t tokens) {
    return bundle::NarrowedWindows(ReadModelConfig(models / name), tokens);
  };
  EXPECT_EQ(narrowed("llama", 32), 0);
  EXPECT_EQ(narrowed("mistral-window", 32), 0);  // its windows have 16 tokens
  EXPECT_EQ(narrowed("mistral-window", 17), 0);
  EXPECT_EQ(narrowed("mistral-window", 16), 4);
  EXPECT_EQ(narrowed("mistral-window", 3), 1);
}

// Windows of 100 tokens, of which the verification has 32: a bundle whose windows are not those of
// the source is still seen.
TEST(BundleErrors, SeeAWindowThatTheTokensDoNotReach) {
  const testing::TempDir dir;
  const auto model = dir / "model";
  std::filesystem::copy(testing::SourceRoot() / "tests/golden/models/qwen3-window", model);
  Json config = ReadJsonFile(model / "config.json");
  config["sliding_window"] = 100;
  WriteJsonFile(model / "config.json", config);
  ExportOptions options;
  options.model = model;
  options.output = dir / "bundle";
  NoProgress silent;
  (void)ExportBundle(PlanExport(options), options, Json(), silent);
  ThreadPool pool(1);
  if (!SourceLogits(Checkpoint::Open(model), 1)) return;  // a build without LibTorch
  EXPECT_LT(CheckBundle(options.output, pool).verification->max_abs_error, 1e-3);
  ReferenceLogits reference = ReadReference(options.output);
  EXPECT_EQ(reference.narrow_windows, 8);
  const std::vector<double> errors = BundleErrors(options.output, reference, pool);
  EXPECT_LT(*std::ranges::max_element(errors), 1e-3);
  for (const int64_t other : {0, 7, 9}) {
    reference.narrow_windows = other;
    const std::vector<double> seen = BundleErrors(options.output, reference, pool);
    EXPECT_GT(*std::ranges::max_element(seen), 0.1) << other;
  }
}

TEST(DecidingToken, IsTheLargestErrorUnlessAnotherFails) {
  const std::vector<double> tolerances = {1e-3, 8e-3, 1e-3};
  EXPECT_EQ(bundle::DecidingToken({1e-4, 4e-3, 9e-4}, tolerances), 1U);
  EXPECT_EQ(bundle::DecidingToken({1e-4, 4e-3, 2e-3}, tolerances), 2U);
  EXPECT_EQ(bundle::DecidingToken({1e-4, 9e-3, 3e-3}, tolerances), 2U);
  EXPECT_EQ(bundle::DecidingToken({0.0}, {1e-3}), 0U);
}

TEST(ReferenceFile, KeepsTheRounding) {
  const testing::TempDir dir;
  const bundle::ReferenceLogits written{{7, 3},
                                        {1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F, 7.0F, 8.0F, 9.0F,
                                         10.0F, 11.0F, 12.0F, 13.0F, 14.0F, 15.0F, 16.0F},
                                        {1e-5F, 2e-5F}};
  bundle::WriteReference(dir.path(), written);
  const bundle::ReferenceLogits read = bundle::ReadReference(dir.path());
  EXPECT_EQ(read.ids, written.ids);
  EXPECT_EQ(read.logits, written.logits);
  EXPECT_EQ(read.rounding, written.rounding);
  EXPECT_EQ(read.narrow_windows, 0);
  bundle::ReferenceLogits narrow = written;
  narrow.narrow_windows = 8;
  bundle::WriteReference(dir.path(), narrow);
  EXPECT_EQ(bundle::ReadReference(dir.path()).narrow_windows, 8);
}

}  // namespace
}  // namespace kvc::bundle
