#pragma once
// State of an unfinished tuning in files of rank 0, from which a run that was interrupted, or that
// met a NaN, resumes: one file per finished layer, and one per model that is tuned as a whole
// (factorize/tune_global.h).

#include <filesystem>
#include <optional>

#include "core/base/ranks.h"
#include "core/io/json_fwd.h"
#include "factorize/layer_factors.h"
#include "factorize/tuning_result.h"

namespace kvc::factorize {

class TuneState {
 public:
  // `directory` is where the output is being written. `settings` is what the layers depend on,
  // without the learning rate, so that a run that diverged can resume with a lower one. Throws
  // kUsage, naming the first differing field, when the directory holds layers of other settings.
  TuneState(std::filesystem::path directory, const Json& settings, Ranks& ranks = OneRank());

  // Loads the tuned factors into `factors` (which holds the untuned ones) and returns what Save was
  // told about them; nothing when the layer is not finished. Collective. Throws kBadInput when its
  // file is broken.
  [[nodiscard]] std::optional<LayerTuning> Load(int64_t layer, LayerFactors& factors) const;
  void Save(int64_t layer, const LayerFactors& factors, const LayerTuning& tuning) const;
  // Returns the file of the whole model's tuning: "thin", or "control". The tuning itself writes
  // it.
  [[nodiscard]] std::filesystem::path GlobalPath(const char* model) const;
  // Removes all files; the output is complete without them.
  void Remove() const;

 private:
  [[nodiscard]] std::optional<LayerTuning> LoadFile(int64_t layer, LayerFactors& factors) const;
  [[nodiscard]] std::filesystem::path LayerPath(int64_t layer) const;
  [[nodiscard]] std::filesystem::path SettingsPath() const;

  std::filesystem::path directory_;
  Ranks& ranks_;
};

}  // namespace kvc::factorize
