#pragma once
// Profiles of golden models over short random windows.

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "core/base/rng.h"
#include "core/io/json.h"
#include "linalg/svd.h"
#include "pipeline/profile_bases.h"
#include "profile/profile_model.h"
#include "tests/model/golden_models.h"
#include "tests/support/temp_dir.h"

namespace kvc::profile {

inline ProfileOptions SmallOptions() {
  ProfileOptions options;
  options.scorers = {ScorerKind::kSnapKv,    ScorerKind::kExpectedAttention,
                     ScorerKind::kKeyDiff,   ScorerKind::kKnorm,
                     ScorerKind::kStreaming, ScorerSpec(ScorerKind::kOutputError, {.pool = 3})};
  options.context = 40;
  options.horizon = 8;
  options.sinks = 2;
  options.window = 5;
  return options;
}

// Keys that are thin behind their rotation refuse the scorer that turns queries.
inline ProfileOptions OptionsFor(const std::string& model) {
  ProfileOptions options = SmallOptions();
  if (model.find("-rope") != std::string::npos) {
    std::erase(options.scorers, ScorerSpec(ScorerKind::kExpectedAttention));
  }
  return options;
}

// No token stands twice in a window: rotation keeps the norm of equal keys equal, and rounding
// would then decide their order.
inline std::vector<std::vector<int32_t>> RandomWindows(const ProfileOptions& options,
                                                       int64_t count) {
  Rng rng(77);
  std::vector<std::vector<int32_t>> windows(count);
  for (auto& window : windows) {
    std::vector<int32_t> tokens(96);
    std::iota(tokens.begin(), tokens.end(), 0);
    for (int64_t t = 0; t < options.context + options.horizon; ++t) {
      std::swap(tokens[t], tokens[t + rng.NextBelow(96 - t)]);
      window.push_back(tokens[t]);
    }
  }
  return windows;
}

inline const Json kProvenance = {{"seed", 42}};

inline ProfileInputs Inputs(const Checkpoint& checkpoint,
                            std::vector<std::vector<int32_t>> windows) {
  ProfileInputs inputs;
  inputs.windows = std::move(windows);
  inputs.make_bases = [&checkpoint](int64_t layer, const LayerGrams& grams) {
    const auto svd = linalg::Svd::Create(linalg::SvdBackend::kEigen);
    return pipeline::MakeBases(checkpoint.config(), layer, grams, *svd);
  };
  inputs.provenance = kProvenance;
  return inputs;
}

inline ProfileData Profile(const std::string& model,
                           const ProfileOptions& options,
                           int64_t num_windows = 3) {
  const kvc::testing::TempDir directory;
  NoProgress silent;
  const Checkpoint checkpoint = kvc::testing::OpenGolden(model);
  return ProfileModel(checkpoint, Inputs(checkpoint, RandomWindows(options, num_windows)), options,
                      directory.path(), silent);
}

}  // namespace kvc::profile
