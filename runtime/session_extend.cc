// A session's continuation of a sequence by several tokens.

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "runtime/backend.h"
#include "runtime/session.h"

namespace kvc::runtime {

void Session::CheckExtension(const Sequence& sequence,
                             std::span<const int32_t> ids,
                             MatrixF logits) const {
  KVC_CHECK(sequence.backend_->name() == backend_->name(), kUsage,
            "extend: expected a sequence on {}, got one on {}", backend_->name(),
            sequence.backend_->name());
  KVC_CHECK(sequence.length() > 0, kUsage,
            "extend: expected a sequence with a prompt, got an empty one; prefill it");
  const int64_t count = std::ssize(ids);  // T
  const int64_t room = context_length() - sequence.length();
  KVC_CHECK(count > 0 && count <= room, kBadInput,
            "prompt: expected 1 to {} tokens behind {}, got {}; shorten it", room,
            sequence.length(), count);
  CheckIds(ids);
  const int64_t vocabulary = bundle_->plan().vocab_size;
  KVC_CHECK((logits.rows == 1 || logits.rows == count) && logits.cols == vocabulary, kBadShape,
            "extend: expected logits [1 or {}, {}], got [{}, {}]", count, vocabulary, logits.rows,
            logits.cols);
}

void Session::Extend(Sequence& sequence, std::span<const int32_t> ids, MatrixF logits) {
  CheckExtension(sequence, ids, logits);
  const int64_t count = std::ssize(ids);  // T
  const bool by_row = backend_->AttendsByRow();
  const int64_t chunk = by_row ? std::min(sequence.options_.chunk, count) : 1;
  const auto x = by_row ? backend_->NewActivations(model_, {chunk, chunk, false, false}) : nullptr;
  for (int64_t t = 0; t < count; t += chunk) {
    checkpoint_();
    const int64_t rows = std::min(chunk, count - t);
    // The rows of logits that this chunk is asked for.
    MatrixF wanted = logits.RowRange(0, 0);
    if (logits.rows == count) {
      wanted = logits.RowRange(t, rows);
    } else if (t + rows == count) {
      wanted = logits;
    }
    if (by_row) {
      ExtendByChunk(sequence, ids.subspan(t, rows), *x, wanted);
    } else {
      ExtendByStep(sequence, ids[t], wanted);
    }
  }
}

// In each layer, what a token finds there depends on the tokens before it alone: a chunk goes
// through the layer row by row, and through the products between attentions at once.
void Session::ExtendByChunk(Sequence& sequence,
                            std::span<const int32_t> ids,
                            Activations& x,
                            MatrixF logits) {
  SequenceCache& cache = *sequence.cache_;
  const int64_t start = cache.length();
  const int64_t rows = std::ssize(ids);
  std::vector<int32_t> positions(ids.size());  // as rows of the model's tables
  for (int64_t i = 0; i < rows; ++i) {
    positions[i] = static_cast<int32_t>(RotationRow(bundle_->plan(), start + i, start + i + 1));
  }
  const RowBatch batch = {ids, positions, 0};
  backend_->Run(0, SectionPart::kWhole, batch, x);
  for (int64_t layer = 0; layer < std::ssize(bundle_->plan().attentions); ++layer) {
    backend_->Run(1 + layer, SectionPart::kBeforeAttention, batch, x);
    for (int64_t i = 0; i < rows; ++i) {
      cache.set_length(start + i);  // decisions depend on it
      MakeRoom(sequence, layer);
      backend_->Store(layer, {i, 1}, start + i, x, cache);
      backend_->AttendRow(layer, i, cache, x);
    }
    backend_->Run(1 + layer, SectionPart::kBehindAttention, batch, x);
  }
  cache.set_length(start + rows);
  if (logits.rows == 0) return;
  const int64_t first = rows - logits.rows;
  backend_->ReadLogits({ids.subspan(first), std::span(positions).subspan(first), first}, x, logits);
}

// The logits of every step are read: a backend may run a step when they are.
void Session::ExtendByStep(Sequence& sequence, int32_t id, MatrixF logits) {
  Sequence* const one[] = {&sequence};
  if (logits.rows == 0) {
    logits_.resize(static_cast<size_t>(bundle_->plan().vocab_size));
    logits = MatrixF(logits_.data(), 1, bundle_->plan().vocab_size);
  }
  Decode(one, {&id, 1}, logits);
}

}  // namespace kvc::runtime
