// A session's decode steps: room for one more token in every layer, and the step itself.

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/processor_time.h"
#include "kernels/sampling.h"
#include "runtime/apply_decision.h"
#include "runtime/backend.h"
#include "runtime/policy/decide.h"
#include "runtime/policy/spread.h"
#include "runtime/session.h"

namespace kvc::runtime {

// Sees to it that one more token fits into a layer's recent blocks.
void Session::MakeRoom(Sequence& sequence, int64_t layer) {
  SequenceCache& cache = *sequence.cache_;
  const LayerCache& store = cache.layer(layer);
  if (!store.groups[0].recent.full()) return;
  const bool has_tiers = !store.groups[0].tiers.empty();
  if (has_tiers && sequence.options_.decode == DecodePolicy::kReallocate) {
    const double start = ProcessorSeconds();
    Reallocate(sequence, layer);
    sequence.choosing_seconds_ += ProcessorSeconds() - start;
    return;
  }
  ApplyDecision(*backend_, DecideGrowth(cache.spec(), layer, cache.length(), RowsOf(store)), layer,
                cache.length(), cache);
}

void Session::Reallocate(Sequence& sequence, int64_t layer) {
  SequenceCache& cache = *sequence.cache_;
  const CacheSpec& spec = cache.spec();
  std::shared_ptr<const scorers::Scorer> scorer = sequence.scorer_;
  const bool wants_output = scorer->needs_output() || spec.has_narrow_tiers();
  if (spec.has_narrow_tiers()) {
    // Neighbours in the tiers are no neighbours in the text: nothing is pooled over them.
    CacheSpec alone = spec;
    alone.scorer.options.pool = 1;
    scorer = ScorerOf(alone);
  }
  const ScoreRequest request = {layer, scorer.get(), bundle_->rotation(layer, cache.length()),
                                nullptr, wants_output};
  std::vector<GroupScores> fresh = backend_->Score(request, *model_, cache);
  const std::vector<int64_t> rows = TierRows(cache, layer, cache.length());
  ApplyDecision(
      *backend_,
      DecideReallocation(spec, layer, cache.length(), RowsOf(cache.layer(layer)), fresh, rows),
      layer, cache.length(), cache);
}

void Session::CheckStep(std::span<Sequence* const> sequences, std::span<const int32_t> ids) const {
  KVC_CHECK(sequences.size() == ids.size(), kBadShape,
            "decode: expected one id for each of {} sequences, got {}", sequences.size(),
            ids.size());
  CheckIds(ids);
  for (const Sequence* sequence : sequences) {
    KVC_CHECK(sequence->backend_->name() == backend_->name(), kUsage,
              "decode: expected a sequence on {}, got one on {}", backend_->name(),
              sequence->backend_->name());
    KVC_CHECK(sequence->length() > 0, kUsage, "decode: expected a sequence with a prompt");
    KVC_CHECK(sequence->length() < context_length(), kBadInput,
              "sequence: expected at most {} tokens, got one more", context_length());
  }
}

void Session::Decode(std::span<Sequence* const> sequences,
                     std::span<const int32_t> ids,
                     MatrixF logits) {
  KVC_CHECK(logits.rows == std::ssize(sequences) && logits.cols == bundle_->plan().vocab_size,
            kBadShape, "decode: expected one id and one row of logits for each of {} sequences",
            sequences.size());
  CheckStep(sequences, ids);
  if (sequences.empty()) return;
  const RowBatch batch = RunStep(sequences, ids);
  backend_->ReadLogits(batch, *step_, logits);
  EndStep();
}

void Session::DecodeTokens(std::span<Sequence* const> sequences,
                           std::span<const int32_t> ids,
                           const kernels::SamplingOptions& options,
                           std::span<Rng* const> rngs,
                           std::span<int32_t> next) {
  KVC_CHECK(rngs.size() == sequences.size() && next.size() == sequences.size(), kBadShape,
            "decode: expected a generator and room for a token of each of {} sequences",
            sequences.size());
  CheckStep(sequences, ids);
  if (sequences.empty()) return;
  const RowBatch batch = RunStep(sequences, ids);
  if (!backend_->DrawTokens(batch, *step_, options, rngs, next)) {
    const auto vocabulary = static_cast<size_t>(bundle_->plan().vocab_size);  // V
    logits_.resize(sequences.size() * vocabulary);
    backend_->ReadLogits(batch, *step_,
                         {logits_.data(), std::ssize(sequences), static_cast<int64_t>(vocabulary)});
    for (size_t b = 0; b < sequences.size(); ++b) {
      const auto row = std::span(logits_).subspan(b * vocabulary, vocabulary);
      const bool bad = std::ranges::any_of(row, [](float x) { return std::isnan(x); });
      next[b] = bad ? kNoToken : kernels::SampleToken(row, options, *rngs[b]);
    }
  }
  EndStep();
}

// All of a step but its last section.
RowBatch Session::RunStep(std::span<Sequence* const> sequences, std::span<const int32_t> ids) {
  const auto batch_size = static_cast<int64_t>(sequences.size());  // B
  if (step_ == nullptr || step_rows_ < batch_size) {
    step_ = backend_->NewActivations(model_, {batch_size, batch_size, false, true});
    step_rows_ = batch_size;
  }
  positions_.clear();
  caches_.clear();
  for (Sequence* sequence : sequences) {
    const int64_t position = sequence->length();
    positions_.push_back(
        static_cast<int32_t>(RotationRow(bundle_->plan(), position, position + 1)));
    caches_.push_back(sequence->cache_.get());
  }
  const RowBatch batch = {ids, positions_, 0};
  backend_->Run(0, SectionPart::kWhole, batch, *step_);
  for (int64_t layer = 0; layer < std::ssize(bundle_->plan().attentions); ++layer) {
    backend_->Run(1 + layer, SectionPart::kBeforeAttention, batch, *step_);
    for (int64_t b = 0; b < batch_size; ++b) {
      MakeRoom(*sequences[b], layer);
      backend_->Store(layer, {b, 1}, sequences[b]->length(), *step_, *caches_[b]);
    }
    backend_->AttendTokens(layer, caches_, *step_);
    backend_->Run(1 + layer, SectionPart::kBehindAttention, batch, *step_);
  }
  return batch;
}

void Session::EndStep() {
  for (SequenceCache* cache : caches_) cache->set_length(cache->length() + 1);
}

}  // namespace kvc::runtime
