#include "factorize/held_back.h"

#include <vector>

#include "core/io/json.h"
#include "factorize/thin_layer.h"
#include "model/embedding_rows.h"

namespace kvc::factorize {

HeldBack::HeldBack(const Checkpoint& source, const Windows& windows, Progress& progress)
    : source_(source), progress_(progress) {
  if (windows.empty()) return;
  reference_ = model::ReferenceRun{
      source.config(),
      {},
      windows,
      model::StreamWindows(source, windows, {}, nullptr, progress, "reference")};
}

const model::ReferenceRun* HeldBack::reference() const {
  if (!reference_) return nullptr;
  if (!reference_->outer.lm_head.defined()) reference_->outer = model::LoadHead(source_);
  return &*reference_;
}

void HeldBack::MeasureUntuned(const KeyFactors& keys,
                              const std::vector<LayerFactors>& factors,
                              Json& result) const {
  if (!reference_) return;
  const auto distance = MeasureFactors(*reference(), source_, keys, factors, progress_);
  result["kld_before_tuning"] = distance.kld;
  result["perplexity_before_tuning"] = distance.perplexity;
}

void HeldBack::MeasureWritten(const std::filesystem::path& directory,
                              const char* kld_name,
                              Json& result) const {
  if (!reference_) return;
  const Checkpoint written = Checkpoint::Open(directory);
  const std::vector<torch::Tensor> hidden =
      model::StreamWindows(written, reference_->windows, {}, nullptr, progress_, "model");
  // Norm and head are written as the source has them: no need to hold them twice.
  const auto distance =
      model::CompareHidden(*reference(), written.config(), reference()->outer, hidden, progress_);
  result[kld_name] = distance.kld;
  result["perplexity"] = distance.perplexity;
  result["perplexity_source"] = distance.reference_perplexity;
  result["held_back_tokens"] = distance.tokens;
}

}  // namespace kvc::factorize
