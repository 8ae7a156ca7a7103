#pragma once
// Measures models against the source on the windows that nothing was learned from. The source's
// head is loaded only when it is first needed: for a large model it is as big as half a layer.

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/calibration_text.h"
#include "factorize/layer_factors.h"
#include "model/compare.h"

namespace kvc::factorize {

// Measures the thin model on the reference's windows, streamed layer by layer.
[[nodiscard]] model::ModelDistance MeasureFactors(const model::ReferenceRun& reference,
                                                  const Checkpoint& source,
                                                  const KeyFactors& keys,
                                                  const std::vector<LayerFactors>& factors,
                                                  Progress& progress);

class HeldBack {
 public:
  // Runs the source, unless `windows` is empty; then nothing is measured. Every window is a part
  // of the ranks' work; the constructor and what measures are collective.
  HeldBack(const Checkpoint& source, const Windows& windows, Progress& progress, Ranks& ranks);
  ~HeldBack();

  // Returns the source's run on this rank's windows; null when no window is held back.
  [[nodiscard]] const model::ReferenceRun* reference() const;
  // Measure thin keys, and a checkpoint that was written; none when no window is held back.
  [[nodiscard]] std::optional<model::ModelDistance> Measure(
      const KeyFactors& keys, const std::vector<LayerFactors>& factors) const;
  [[nodiscard]] std::optional<model::ModelDistance> MeasureWritten(
      const std::filesystem::path& directory) const;

 private:
  const Checkpoint& source_;
  Progress& progress_;
  bool one_of_many_ = false;                        // model::StreamOptions
  std::unique_ptr<model::ReferenceRun> reference_;  // the head comes later
};

}  // namespace kvc::factorize
