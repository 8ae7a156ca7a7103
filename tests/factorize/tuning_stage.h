#pragma once
// Tuning through the whole stage, on the bundled model: what tests of both kinds share.

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/files.h"
#include "factorize/factorize_model.h"
#include "linalg/matrix.h"
#include "linalg/svd.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::factorize::testing {

inline const std::filesystem::path kRoot = kvc::testing::SourceRoot();

// Stops the stage when it reports the given place of the given stage.
class StopsAt : public Progress {
 public:
  StopsAt(std::string stage, int64_t done) : stage_(std::move(stage)), done_(done) {}
  void Report(const std::string& stage, int64_t done, int64_t) override {
    KVC_CHECK(stage != stage_ || done < done_, kInterrupted, "stopped by the test");
  }
  void Log(const std::string&) override {}

 private:
  std::string stage_;
  int64_t done_;
};

class TuningStage : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.model = kRoot / "examples/models/needle-llama";
    options_.output = temp_.path() / "thin";
    options_.force = true;
    options_.layout = ParseLayout("latent:1");
    options_.calibration = {kRoot / "examples/text/alice-calibration.txt"};
    options_.calibration_tokens = 2048;
    options_.window = 128;
    options_.held_back = 4;
    options_.rank = ParseRank("25%", "--rank");
    options_.objective = Objective::kWeight;  // leaves something to tune on this small model
    options_.tune_tokens = 4096;
    options_.tuning.passes = 2;
  }
  Json Run() {
    NoProgress progress;
    return ToJson(FactorizeModel(options_, progress));
  }
  [[nodiscard]] std::string Hash() const {
    return Sha256File(options_.output / "model.safetensors");
  }
  [[nodiscard]] std::filesystem::path Partial() const { return temp_.path() / "thin.partial"; }

  // The dense key map of every layer that the joint latent amounts to has exactly a quarter of the
  // width as its rank.
  void ExpectQuarterRank() const {
    const Checkpoint thin = Checkpoint::Open(options_.output);
    const ModelConfig& config = thin.config();
    const int64_t width = config.num_kv_heads * config.head_width;
    const auto svd = linalg::Svd::Create(linalg::SvdBackend::kEigen);
    for (int64_t l = 0; l < config.num_layers; ++l) {
      const int64_t rank = width / 4;
      ASSERT_EQ(config.key_width(l, 0), rank);
      ASSERT_EQ(thin.Shape(Role::kK, l), (std::vector<int64_t>{rank, config.model_width}));
      const std::vector<float> reduce = thin.Load(Role::kK, l);
      const std::vector<float> rebuild = thin.Load(Role::kKRebuild, l);
      linalg::Matrix a(rank, config.model_width), b(width, rank);
      std::copy(reduce.begin(), reduce.end(), a.data.begin());
      std::copy(rebuild.begin(), rebuild.end(), b.data.begin());
      const linalg::SvdResult dense = svd->Decompose(linalg::Multiply(b.view(), a.view()).view());
      EXPECT_GT(dense.s[rank - 1], 1e-6 * dense.s[0]);
      EXPECT_LT(dense.s[rank], 1e-12 * dense.s[0]);
    }
  }

  kvc::testing::TempDir temp_;
  FactorizeOptions options_;
};

// Windows of random tokens, for models without a tokenizer.
inline std::vector<std::vector<int32_t>> RandomWindows(int64_t vocabulary) {
  Rng rng(7);
  std::vector<std::vector<int32_t>> windows(24, std::vector<int32_t>(48));
  for (auto& window : windows) {
    for (int32_t& id : window) id = static_cast<int32_t>(rng.NextBelow(vocabulary));
  }
  return windows;
}

// A golden model and a layout that its family can have.
struct FamilyCase {
  const char* model;
  KeyLayout layout;
};

// Thin keys of half the width in closed form, without a text.
struct FamilyKeys {
  KeyFactors keys;
  std::vector<LayerFactors> factors;
};
[[nodiscard]] FamilyKeys HalfWidth(const Checkpoint& source,
                                   KeyLayout layout,
                                   const std::vector<std::vector<int32_t>>& windows);

inline std::string FamilyCaseName(const ::testing::TestParamInfo<FamilyCase>& info) {
  std::string name =
      std::string(info.param.model) + "_" + std::string(KeyLayoutName(info.param.layout));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

inline const auto kFamilyCases = ::testing::Values(FamilyCase{"gpt2", KeyLayout::kAbsorb},
                                                   FamilyCase{"llama-bias", KeyLayout::kLatent},
                                                   FamilyCase{"mistral", KeyLayout::kPostRope},
                                                   FamilyCase{"llama", KeyLayout::kRopePairs},
                                                   FamilyCase{"qwen2", KeyLayout::kLatent},
                                                   FamilyCase{"qwen3", KeyLayout::kPostRope},
                                                   FamilyCase{"qwen3", KeyLayout::kLatent});

}  // namespace kvc::factorize::testing
