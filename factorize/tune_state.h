#pragma once
// What a tuning that has not ended keeps, so that a run that was interrupted, or that met a NaN,
// goes on: one file for each finished layer, and one for each model that is tuned as a whole
// (factorize/tune_global.h).

#include <filesystem>
#include <optional>

#include "core/io/json.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {

class TuneState {
 public:
  // `directory` is where the output is being written. `settings` is what the layers depend on; the
  // learning rate is left out, so that a run that diverged can go on with a lower one. Throws
  // kUsage, naming the first differing field, when the directory holds layers of other settings.
  TuneState(std::filesystem::path directory, const Json& settings);

  // The tuned factors into `factors` (which holds the untuned ones), and what Save was told about
  // them; nothing when the layer is not finished. Throws kBadInput when its file is broken.
  [[nodiscard]] std::optional<Json> Load(int64_t layer, LayerFactors& factors) const;
  void Save(int64_t layer, const LayerFactors& factors, const Json& report) const;
  // The file of the whole model's tuning: "thin", or "control". Who tunes it writes it.
  [[nodiscard]] std::filesystem::path GlobalPath(const char* model) const;
  // Removes all files: the output is whole without them.
  void Remove() const;

 private:
  [[nodiscard]] std::filesystem::path LayerPath(int64_t layer) const;
  [[nodiscard]] std::filesystem::path SettingsPath() const;

  std::filesystem::path directory_;
};

}  // namespace kvc::factorize
