#pragma once
// Measures models against the source on the windows that nothing was learned from. The source's
// head is loaded only when it is first needed: for a large model it is as big as half a layer.

#include <filesystem>
#include <memory>
#include <vector>

#include "core/base/progress.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/json_fwd.h"
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
  // Runs the source, unless `windows` is empty; then nothing is measured.
  HeldBack(const Checkpoint& source, const Windows& windows, Progress& progress);
  ~HeldBack();

  // Returns null when no window is held back.
  [[nodiscard]] const model::ReferenceRun* reference() const;
  // Adds "kld_before_tuning", "perplexity_before_tuning".
  void MeasureUntuned(const KeyFactors& keys,
                      const std::vector<LayerFactors>& factors,
                      Json& result) const;
  // Adds `kld_name`, "perplexity", "perplexity_source", "held_back_tokens" of a checkpoint.
  void MeasureWritten(const std::filesystem::path& directory,
                      const char* kld_name,
                      Json& result) const;

 private:
  const Checkpoint& source_;
  Progress& progress_;
  std::unique_ptr<model::ReferenceRun> reference_;  // the head comes later
};

}  // namespace kvc::factorize
