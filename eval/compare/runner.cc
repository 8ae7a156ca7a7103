#include "eval/compare/runner.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/processor_time.h"
#include "core/cache/manifest.h"

namespace kvc::eval {
namespace {

int64_t VocabularyOf(const Contestant& contestant) {
  return contestant.session->bundle().manifest().model.vocab_size;
}

}  // namespace

Runner::Runner(std::span<const Contestant> contestants, size_t prompts)
    : prompts_(prompts), vocabulary_(VocabularyOf(contestants[0])), positions_(contestants.size()) {
  for (size_t c = 0; c < contestants.size(); ++c) {
    KVC_CHECK(
        VocabularyOf(contestants[c]) == vocabulary_, kBadShape,
        "{}: expected the reference's vocabulary of {}, got {}; compare bundles of the same model",
        contestants[c].name, vocabulary_, VocabularyOf(contestants[c]));
    SessionBatch& batch = BatchOf(contestants[c].session);
    positions_[c] = {static_cast<size_t>(&batch - batches_.data()), batch.members.size()};
    batch.members.push_back(&contestants[c]);
  }
}

void Runner::Prefill(size_t prompt,
                     std::span<const int32_t> ids,
                     const runtime::SequenceOptions& base) {
  for (SessionBatch& batch : batches_) {
    std::vector<runtime::Sequence*> sequences;
    for (const Contestant* member : batch.members) {
      runtime::SequenceOptions options = base;
      options.cache = member->cache;
      batch.sequences.push_back(batch.session->NewSequence(options));
      sequences.push_back(batch.sequences.back().get());
    }
    batch.logits.resize(prompts_ * batch.members.size() * vocabulary_);
    float* rows = batch.logits.data() + prompt * batch.members.size() * vocabulary_;
    batch.session->Prefill(sequences, ids, MatrixF(rows, 1, vocabulary_));
    for (size_t m = 1; m < batch.members.size(); ++m) {
      std::copy_n(rows, vocabulary_, rows + m * vocabulary_);
    }
  }
}

void Runner::Step(const std::function<int32_t(size_t, size_t)>& next) {
  for (size_t c = 0; c < positions_.size(); ++c) {
    SessionBatch& batch = batches_[positions_[c].batch];
    batch.ids.resize(batch.sequences.size());
    for (size_t p = 0; p < prompts_; ++p) batch.ids[Index(p, c)] = next(p, c);
  }
  for (SessionBatch& batch : batches_) Decode(batch);
}

void Runner::Decode(SessionBatch& batch) {
  std::vector<runtime::Sequence*> sequences;
  std::vector<int32_t> ids;
  std::vector<size_t> owners;
  for (size_t i = 0; i < batch.ids.size(); ++i) {
    if (batch.ids[i] == kRest) continue;
    sequences.push_back(batch.sequences[i].get());
    ids.push_back(batch.ids[i]);
    owners.push_back(i);
  }
  if (sequences.empty()) return;
  const auto rows = static_cast<int64_t>(sequences.size());
  if (sequences.size() == batch.ids.size()) {
    batch.session->Decode(sequences, ids, MatrixF(batch.logits.data(), rows, vocabulary_));
    return;
  }
  scratch_.resize(sequences.size() * vocabulary_);
  batch.session->Decode(sequences, ids, MatrixF(scratch_.data(), rows, vocabulary_));
  for (size_t row = 0; row < owners.size(); ++row) {
    std::copy_n(scratch_.data() + row * vocabulary_, vocabulary_,
                batch.logits.data() + owners[row] * vocabulary_);
  }
}

double Runner::StepAlone(size_t prompt, size_t contestant, int32_t id) {
  SessionBatch& batch = batches_[positions_[contestant].batch];
  runtime::Sequence* const one[] = {batch.sequences[Index(prompt, contestant)].get()};
  scratch_.resize(vocabulary_);
  const double choosing = one[0]->counters().choosing_seconds;
  const double start = ProcessorSeconds();
  batch.session->Decode(one, {&id, 1}, MatrixF(scratch_.data(), 1, vocabulary_));
  const double seconds = ProcessorSeconds() - start;
  return seconds - (one[0]->counters().choosing_seconds - choosing);
}

std::span<const float> Runner::logits(size_t prompt, size_t contestant) const {
  const SessionBatch& batch = batches_[positions_[contestant].batch];
  return std::span(batch.logits).subspan(Index(prompt, contestant) * vocabulary_, vocabulary_);
}

runtime::CacheCounters Runner::counters(size_t prompt, size_t contestant) const {
  return batches_[positions_[contestant].batch].sequences[Index(prompt, contestant)]->counters();
}

Runner::SessionBatch& Runner::BatchOf(runtime::Session* session) {
  for (SessionBatch& batch : batches_) {
    if (batch.session == session) return batch;
  }
  batches_.emplace_back();
  batches_.back().session = session;
  return batches_.back();
}

size_t Runner::Index(size_t prompt, size_t contestant) const {
  const BatchPosition& position = positions_[contestant];
  return prompt * batches_[position.batch].members.size() + position.member;
}

}  // namespace kvc::eval
