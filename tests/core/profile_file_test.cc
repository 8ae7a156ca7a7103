#include "core/cache/profile_file.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/fuzz_file.h"

namespace kvc {
namespace {

class ProfileFile : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(::testing::TempDir()) / "kvc_profile_test";
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    profile_.tool_version = "1.2.3";
    profile_.model_sha256 = std::string(64, 'c');
    profile_.num_layers = 2;
    profile_.num_kv_heads = 3;
    profile_.context = 1024;
    profile_.horizon = 64;
    profile_.windows = 16;
    profile_.options = {{"seed", 42}};
    const size_t points = size_t{6} * (kCurveIntervals + 1);
    for (size_t i = 0; i < points; ++i) {
      profile_.curves[ScorerKind::kSnapKv].push_back(1.0F / static_cast<float>(i + 1));
      profile_.error_curves[ScorerKind::kSnapKv].push_back(2.0F / static_cast<float>(i + 1));
      const ScorerSpec pooled(ScorerKind::kOutputError, {.pool = 15});
      profile_.curves[pooled].push_back(3.0F / static_cast<float>(i + 1));
      profile_.oracle_curve.push_back(0.5F / static_cast<float>(i + 1));
    }
    profile_.importance_method = "oracle";
    profile_.importance_tests = 16;
    profile_.mixed_curves[ScorerKind::kSnapKv] = profile_.oracle_curve;
    profile_.tiers = {{1.0, 1.0}, {0.25, 0.5}};
    profile_.needle_importance = {0.5F, 0.1F, 0.1F, 0.1F, 0.1F, 0.1F};
    profile_.oracle_importance = {0.1F, 0.2F, 0.3F, 0.1F, 0.2F, 0.1F};
    profile_.needle_tests = 24;
    profile_.needle_passed = 5;
    profile_.importance = {0.1F, 0.2F, 0.3F, 0.1F, 0.2F, 0.1F};
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path directory_;
  ProfileData profile_;
};

TEST_F(ProfileFile, RoundTripKeepsEveryField) {
  WriteProfile(directory_, profile_);
  const ProfileData read = ReadProfile(directory_);
  EXPECT_EQ(read.model_sha256, profile_.model_sha256);
  EXPECT_EQ(read.curves, profile_.curves);
  EXPECT_EQ(read.error_curves, profile_.error_curves);
  EXPECT_EQ(read.oracle_curve, profile_.oracle_curve);
  EXPECT_EQ(read.mixed_curves, profile_.mixed_curves);
  ASSERT_EQ(read.tiers.size(), 2U);
  EXPECT_EQ(read.tiers[1].key_share, 0.25);
  EXPECT_EQ(read.tiers[1].value_share, 0.5);
  EXPECT_EQ(read.importance, profile_.importance);
  EXPECT_EQ(read.oracle_importance, profile_.oracle_importance);
  EXPECT_EQ(read.needle_importance, profile_.needle_importance);
  EXPECT_EQ(read.needle_tests, 24);
  EXPECT_EQ(read.needle_passed, 5);
  EXPECT_TRUE(read.bases.empty());
  EXPECT_EQ(read.importance_method, "oracle");
  EXPECT_EQ(read.windows, 16);
  EXPECT_EQ(read.options, profile_.options);
}

TEST_F(ProfileFile, BasesAreOfTheProfilesHeads) {
  LayerBases layer;
  layer.num_kv_heads = 3;
  layer.value_width = 1;
  layer.value = layer.output = {1.0F, 2.0F, 4.0F};
  for (float& value : layer.output) value = 1.0F / value;
  layer.value_mean.assign(3, 0.5F);
  profile_.bases = {layer, layer};
  WriteProfile(directory_, profile_);
  const ProfileData read = ReadProfile(directory_);
  ASSERT_EQ(read.bases.size(), 2U);
  EXPECT_EQ(read.bases[1].value, layer.value);
  profile_.bases.pop_back();
  WriteProfile(directory_, profile_);
  EXPECT_THROW((void)ReadProfile(directory_), Error);
  std::filesystem::remove(directory_ / kBasesFile);
  EXPECT_THROW((void)ReadProfile(directory_), Error);
}

TEST_F(ProfileFile, NanIsRefused) {
  profile_.importance[2] = std::numeric_limits<float>::quiet_NaN();
  WriteProfile(directory_, profile_);
  EXPECT_THROW((void)ReadProfile(directory_), Error);
}

TEST_F(ProfileFile, SizesThatDisagreeAreRefused) {
  WriteProfile(directory_, profile_);
  Json json = ReadJsonFile(directory_ / "profile.json");
  json["num_layers"] = 3;
  WriteJsonFile(directory_ / "profile.json", json);
  EXPECT_THROW((void)ReadProfile(directory_), Error);
}

TEST_F(ProfileFile, WrongValuesAreErrors) {
  WriteProfile(directory_, profile_);
  const auto open = [&] { static_cast<void>(ReadProfile(directory_)); };
  testing::FuzzBytes(directory_ / "profile.json", open);
  testing::FuzzValues(directory_ / "profile.json", open);
}

TEST_F(ProfileFile, DigestFollowsConfigAndWeightsOnly) {
  WriteFile(directory_ / "config.json", "{}");
  WriteFile(directory_ / "model.safetensors", "weights");
  const std::string digest = ModelDigest(directory_);
  WriteFile(directory_ / "README.md", "text");
  EXPECT_EQ(ModelDigest(directory_), digest);
  WriteFile(directory_ / "model.safetensors", "weightz");
  EXPECT_NE(ModelDigest(directory_), digest);
}

}  // namespace
}  // namespace kvc
