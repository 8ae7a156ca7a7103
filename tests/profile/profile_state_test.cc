#include "profile/profile_state.h"

#include <fstream>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::profile {
namespace {

const Json kSignature = {{"model_sha256", "ab"}, {"context", 40}, {"scorers", {"snapkv"}}};

void SaveExample(const std::filesystem::path& directory, int64_t next_layer) {
  const std::vector<float> first = {1.0F, -2.5F};
  const std::vector<float> second = {3.0F, 1e-30F};
  SaveState(directory, kSignature, next_layer,
            {{"oracle", {0.1, 1.0 / 3.0}}, {"snapkv", {2.0, 5.0}}}, {first, second});
}

TEST(ProfileState, GivesBackTheSameBits) {
  const kvc::testing::TempDir directory;
  EXPECT_FALSE(LoadState(directory.path(), kSignature).has_value());
  SaveExample(directory.path(), 3);
  SaveExample(directory.path(), 7);  // replaces
  const auto state = LoadState(directory.path(), kSignature);
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ(state->next_layer, 7);
  EXPECT_EQ(state->sums.at("oracle"), (std::vector<double>{0.1, 1.0 / 3.0}));
  EXPECT_EQ(state->sums.at("snapkv"), (std::vector<double>{2.0, 5.0}));
  ASSERT_EQ(state->hidden.size(), 2U);
  EXPECT_EQ(state->hidden[1], (std::vector<float>{3.0F, 1e-30F}));
  RemoveState(directory.path());
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
  RemoveState(directory.path());  // nothing there is fine
}

TEST(ProfileState, NamesTheFieldThatDiffers) {
  const kvc::testing::TempDir directory;
  SaveExample(directory.path(), 1);
  Json other = kSignature;
  other["context"] = 41;
  EXPECT_KVC_ERROR(static_cast<void>(LoadState(directory.path(), other)), kUsage,
                   "context: expected 40");
  other = kSignature;
  other["scorers"] = {"snapkv", "knorm"};
  EXPECT_KVC_ERROR(static_cast<void>(LoadState(directory.path(), other)), kUsage, "scorers");
  other = kSignature;
  other["seed"] = 1;
  EXPECT_KVC_ERROR(static_cast<void>(LoadState(directory.path(), other)), kUsage,
                   "seed: expected nothing");
  other = kSignature;
  other.erase("model_sha256");
  EXPECT_KVC_ERROR(static_cast<void>(LoadState(directory.path(), other)), kUsage, "got nothing");
}

TEST(ProfileState, RefusesABrokenFile) {
  const kvc::testing::TempDir directory;
  SaveExample(directory.path(), 1);
  const auto path = StatePath(directory.path());
  const std::string bytes = ReadFile(path);
  for (const size_t length : {size_t{0}, size_t{5}, bytes.size() / 2, bytes.size() - 1}) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<int64_t>(length));
    EXPECT_KVC_ERROR(static_cast<void>(LoadState(directory.path(), kSignature)), kBadInput,
                     "state.safetensors");
  }
}

}  // namespace
}  // namespace kvc::profile
