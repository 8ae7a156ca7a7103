#pragma once
// Options of the factorization stage.

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/base/sizes.h"
#include "core/io/json_fwd.h"
#include "factorize/layer_factors.h"
#include "factorize/layout_choice.h"
#include "factorize/tune_options.h"

namespace kvc::factorize {

struct FactorizeOptions {
  std::filesystem::path model;
  // If not empty, `model` is thin, was made from this one, and its tuning is continued. Rank,
  // layout, objective and spread are then those that it has.
  std::filesystem::path source;
  std::filesystem::path output;
  bool force = false;
  RankRequest rank;
  LayoutRequest layout;
  Objective objective = Objective::kAuto;
  std::vector<std::filesystem::path> calibration;
  int64_t calibration_tokens = 16384;
  int64_t window = 512;
  int64_t held_back = 4;  // further windows on which KLD and perplexity are measured
  linalg::SvdBackend svd = linalg::SvdBackend::kLapack;
  bool spread = false;       // ranks over layers and groups, `rank` is their mean
  bool tune = false;         // --tune local
  bool tune_global = false;  // --tune global; after the local one with both
  bool control = false;      // the full model is given the global tuning as well
  int64_t tune_tokens = 65536;
  TuneOptions tuning;
  GlobalTuneOptions global;
  std::vector<int64_t> lengths = {4096, 32768, 131072, 1048576};  // of PlanFactorization's table

  [[nodiscard]] bool tunes() const { return tune || tune_global; }
};

// Returns the value of --tune: "none", "local", "global" or "local,global".
[[nodiscard]] const char* TuneText(const FactorizeOptions& options);

// Names of files with their SHA-256, in hexadecimal digits.
using FileHashes = std::vector<std::pair<std::string, std::string>>;
// Returns the record of the options that the result depends on (docs/formats/factorization.md);
// `calibration` are the hashes of options.calibration.
[[nodiscard]] Json ToJson(const FactorizeOptions& options, const FileHashes& calibration);

}  // namespace kvc::factorize
