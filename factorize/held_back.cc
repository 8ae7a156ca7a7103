#include "factorize/held_back.h"

#include <vector>

#include "core/base/thread_pool.h"
#include "factorize/thin_layer.h"
#include "factorize/window_share.h"
#include "model/embedding_rows.h"
#include "model/reference_run.h"
#include "model/streamed.h"
#include "model/threads.h"

namespace kvc::factorize {
namespace {

// Runs a checkpoint on a rank's windows, which are `one_of_many`. Returns the last hidden states.
std::vector<torch::Tensor> RunWindows(const Checkpoint& checkpoint,
                                      const Windows& windows,
                                      bool one_of_many,
                                      const char* stage,
                                      Progress& progress) {
  model::StreamOptions stream;
  stream.one_of_many = one_of_many;
  return model::StreamWindows(checkpoint, windows, stream, nullptr, progress, stage);
}

}  // namespace

model::ModelDistance MeasureFactors(const model::ReferenceRun& reference,
                                    const Checkpoint& source,
                                    const KeyFactors& keys,
                                    const std::vector<LayerFactors>& factors,
                                    Progress& progress) {
  const ModelConfig thin = ThinConfig(source.config(), keys);
  std::vector<torch::Tensor> hidden =
      model::EmbedWindows(source, reference.windows);  // [T, E] each
  {
    const model::SingleThreadedOperations single;
    ThreadPool pool(single.outer_threads());
    for (int64_t l = 0; l < thin.num_layers; ++l) {
      const model::LayerWeights full = model::LoadLayer(source, l);
      source.ReleaseLayer(l);
      RunLayer(thin, ThinLayer(thin, full, factors[l]), l, pool, hidden);
      progress.Report("thin model", l + 1, thin.num_layers);
    }
  }
  return model::CompareHidden(reference, thin, reference.outer, hidden, progress);
}

HeldBack::HeldBack(const Checkpoint& source,
                   const Windows& windows,
                   Progress& progress,
                   Ranks& ranks)
    : source_(source), progress_(progress) {
  if (windows.empty()) return;
  one_of_many_ = !ranks.is_only() && windows.size() > 1;
  reference_ = std::make_unique<model::ReferenceRun>();
  reference_->config = source.config();
  reference_->windows = OwnWindows(windows, ranks);
  reference_->ranks = &ranks;
  reference_->hidden = RunWindows(source, reference_->windows, one_of_many_, "reference", progress);
}

HeldBack::~HeldBack() = default;

const model::ReferenceRun* HeldBack::reference() const {
  if (!reference_) return nullptr;
  if (!reference_->outer.lm_head.defined()) reference_->outer = model::LoadHead(source_);
  return reference_.get();
}

std::optional<model::ModelDistance> HeldBack::Measure(
    const KeyFactors& keys, const std::vector<LayerFactors>& factors) const {
  if (!reference_) return std::nullopt;
  return MeasureFactors(*reference(), source_, keys, factors, progress_);
}

std::optional<model::ModelDistance> HeldBack::MeasureWritten(
    const std::filesystem::path& directory) const {
  if (!reference_) return std::nullopt;
  const Checkpoint written = Checkpoint::Open(directory);
  const std::vector<torch::Tensor> hidden =
      RunWindows(written, reference_->windows, one_of_many_, "model", progress_);
  // Norm and head are written unchanged from the source: no need to hold them twice.
  return model::CompareHidden(*reference(), written.config(), reference()->outer, hidden,
                              progress_);
}

}  // namespace kvc::factorize
