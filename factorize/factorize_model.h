#pragma once
// The stage: checkpoint in, thin checkpoint and factorization.json out.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/model_config.h"
#include "core/progress.h"
#include "core/sizes.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {

struct FactorizeOptions {
  std::filesystem::path model;
  std::filesystem::path output;
  bool force = false;
  RankRequest rank;
  std::string layout = "auto";  // auto | absorb | latent:N | latent:heads
  Objective objective = Objective::kAuto;
  std::vector<std::filesystem::path> calibration;
  int64_t calibration_tokens = 16384;
  int64_t window = 512;
  int64_t held_back = 4;  // further windows on which KLD and perplexity are measured
  SvdBackend svd = SvdBackend::kLapack;
};

// What --layout stands for in this family. `auto`: absorb without rotation, else the joint latent,
// which loses least at equal bytes without tuning (docs/results.md). Throws kUsage for a layout
// that the family cannot have, naming those it can; kUnsupported for one that this version does not
// have.
struct LayoutChoice {
  KeyLayout layout = KeyLayout::kLatent;
  int64_t num_groups = 1;
};
[[nodiscard]] LayoutChoice ResolveLayout(const std::string& name, const ModelConfig& config);

// Sizes without any work: ranks, key_bytes_share, cache bytes for one token before and after.
[[nodiscard]] Json PlanFactorization(const FactorizeOptions& options);

// Runs the stage; returns what factorization.json holds. Throws kBadInput when an objective needs
// calibration text and there is none or it is shorter than one window.
[[nodiscard]] Json FactorizeModel(const FactorizeOptions& options, Progress& progress);

}  // namespace kvc::factorize
