#include "profile/profile_state.h"

#include <fstream>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thread_ranks.h"

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

// Hidden states of window w.
std::vector<float> HiddenOf(int64_t w) { return {static_cast<float>(w), 0.5F}; }

// What `size` ranks save of `num_windows` windows.
void SaveOn(int size, const std::filesystem::path& directory, int64_t layer, int64_t num_windows) {
  kvc::testing::RunRanks(size, [&](Ranks& ranks) {
    std::vector<std::vector<float>> mine;
    for (const int64_t w : ranks.PartsOf(num_windows)) mine.push_back(HiddenOf(w));
    SaveState(directory, kSignature, layer, {{"oracle", {1.5}}}, {mine.begin(), mine.end()}, ranks);
  });
}

TEST(ProfileState, GoesOnWithAnotherNumberOfRanks) {
  for (const int64_t num_windows : {1, 3, 5}) {
    for (const int writers : {1, 2, 4}) {
      for (const int readers : {1, 3, 4}) {
        const kvc::testing::TempDir directory;
        SaveOn(4, directory.path(), 1, num_windows);
        SaveOn(writers, directory.path(), 2, num_windows);
        kvc::testing::RunRanks(readers, [&](Ranks& ranks) {
          const auto state = LoadState(directory.path(), kSignature, ranks);
          ASSERT_TRUE(state.has_value());
          EXPECT_EQ(state->next_layer, 2);
          EXPECT_EQ(state->num_windows, num_windows);
          std::vector<std::vector<float>> expected;
          for (const int64_t w : ranks.PartsOf(num_windows)) expected.push_back(HiddenOf(w));
          EXPECT_EQ(state->hidden, expected);
        });
        RemoveState(directory.path());
        EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
      }
    }
  }
}

TEST(ProfileState, LeavesNothingOfKilledRuns) {
  const kvc::testing::TempDir directory;
  SaveOn(3, directory.path(), 4, 5);
  // Killed while the next layer was saved: one rank was ready, one was writing.
  std::ofstream(directory.path() / "hidden.5.0.safetensors") << "x";
  std::ofstream(directory.path() / ".hidden.5.1.safetensors.77-1.tmp") << "x";
  EXPECT_EQ(LoadState(directory.path(), kSignature)->next_layer, 4);
  SaveOn(2, directory.path(), 5, 5);
  const auto state = LoadState(directory.path(), kSignature);
  EXPECT_EQ(state->next_layer, 5);
  EXPECT_EQ(state->hidden.back(), HiddenOf(4));
  RemoveState(directory.path());
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(ProfileState, RefusesMissingHiddenStates) {
  const kvc::testing::TempDir directory;
  SaveOn(2, directory.path(), 3, 4);
  std::filesystem::remove(directory.path() / "hidden.3.1.safetensors");
  EXPECT_KVC_ERROR(static_cast<void>(LoadState(directory.path(), kSignature)), kBadInput,
                   "hidden.3.1.safetensors: expected hidden states");
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
