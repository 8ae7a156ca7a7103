#include "runtime/session.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/base/processor_time.h"
#include "core/cache/manifest.h"
#include "kernels/attention.h"
#include "runtime/cache/kv_layout.h"
#include "runtime/cpu/apply_moves.h"
#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/decode_batch.h"
#include "runtime/cpu/executor.h"
#include "runtime/cpu/host_device.h"
#include "runtime/cpu/scoring.h"
#include "runtime/load/bundle.h"
#include "runtime/policy/decide.h"
#include "runtime/policy/prompt_scores.h"
#include "runtime/policy/spread.h"
#include "runtime/sequence.h"
#include "scorers/tier_loss.h"

namespace kvc::runtime {
namespace {

// Turns a layer's working blocks into tiers and recent blocks.
void BuildLayer(SequenceCache& cache,
                int64_t layer,
                int64_t length,
                std::vector<GroupScores> scores) {
  const std::vector<int64_t> tier_rows = TierRows(cache, layer, length);
  ApplyMoves(DecidePrompt(cache.spec(), layer, length, scores, tier_rows), layer, cache);
}

// Returns the processor time that this takes a cache on its own.
double CompressLayer(const LayerScoring& scoring, SequenceCache& cache, PromptScores& shared) {
  const CacheSpec& spec = cache.spec();
  const double start = ProcessorSeconds();
  const int64_t layer = scoring.attention->layer;
  const int64_t length = cache.layer(layer).groups[0].recent.rows();
  if (spec.mixed()) {
    cache.MakeCoordinates(layer);
    if (spec.basis == TierBasis::kPrompt) FindCoordinates(scoring, cache);
  }
  const PromptScores::Scored* scored = shared.Find(scoring.scorer, spec);
  const double before = ProcessorSeconds();
  if (scored == nullptr) {
    PromptScores::Scored fresh;
    fresh.groups = ScoreLayer(scoring, cache);
    fresh.seconds = ProcessorSeconds() - before;
    scored = &shared.Add(scoring.scorer, spec, std::move(fresh));
  }
  const double after = ProcessorSeconds();
  std::vector<GroupScores> scores = scored->groups;
  PinSinks(spec, scores);
  if (spec.method == Method::kAdaModel) {
    cache.layer(layer).prompt_scores = std::move(scores);
  } else {
    SpreadOverLayer(cache, layer, length, scores);
    BuildLayer(cache, layer, length, std::move(scores));
  }
  return before - start + scored->seconds + ProcessorSeconds() - after;
}

void CompressModel(SequenceCache& cache) {
  if (cache.spec().method != Method::kAdaModel) return;
  const int64_t length = cache.layer(0).groups[0].recent.rows();
  SpreadOverModel(cache, length);
  for (int64_t l = 0; l < cache.spec().num_layers(); ++l) {
    BuildLayer(cache, l, length, std::move(cache.layer(l).prompt_scores));
  }
}

class CpuSession : public Session {
 public:
  CpuSession(std::shared_ptr<const LoadedBundle> bundle, ThreadPool& pool)
      : bundle_(std::move(bundle)),
        plan_(bundle_->plan()),
        pool_(pool),
        executor_(bundle_->prepared(), pool) {}

  const Bundle& bundle() const override { return *bundle_; }
  std::unique_ptr<Sequence> NewSequence(const SequenceOptions& options) override;
  void Prefill(std::span<Sequence* const> sequences,
               std::span<const int32_t> ids,
               MatrixF logits) override;
  void Decode(std::span<Sequence* const> sequences,
              std::span<const int32_t> ids,
              MatrixF logits) override;

 private:
  [[nodiscard]] int64_t context_length() const;
  void CheckIds(std::span<const int32_t> ids) const;
  [[nodiscard]] const scorers::Scorer* ScorerOf(const CacheSpec& spec);
  [[nodiscard]] LayerScoring Scoring(const CachedSequence& sequence,
                                     const AttentionStep& step,
                                     ConstMatrixF prompt_queries);
  void CheckPrompt(std::span<CachedSequence* const> sequences,
                   std::span<const int32_t> ids,
                   MatrixF logits) const;
  void PrefillLayer(std::span<CachedSequence* const> sequences, int64_t layer, MatrixF hidden);
  void PrefillAttend(const LayerCache& cache,
                     const AttentionStep& step,
                     int64_t first,
                     ConstMatrixF q,
                     MatrixF out);
  void MakeRoom(CachedSequence& sequence, const AttentionStep& step);

  std::shared_ptr<const LoadedBundle> bundle_;  // shared by sessions
  const Plan& plan_;
  ThreadPool& pool_;
  Executor executor_;
  DecodeBatch decode_;
  HostDevice& device_ = SharedHostDevice();
  std::map<ScorerSpec, std::unique_ptr<scorers::Scorer>> scorers_;
};

int64_t CpuSession::context_length() const {
  return std::min(plan_.max_positions, bundle_->manifest().model.context_length);
}

void CpuSession::CheckIds(std::span<const int32_t> ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    KVC_CHECK(ids[i] >= 0 && ids[i] < plan_.vocab_size, kBadInput,
              "token {}: expected an id below {}, got {}", i, plan_.vocab_size, ids[i]);
  }
}

const scorers::Scorer* CpuSession::ScorerOf(const CacheSpec& spec) {
  if (spec.full()) return nullptr;
  const ScorerSpec chosen =
      spec.method == Method::kStreaming ? ScorerSpec(ScorerKind::kStreaming) : spec.scorer;
  auto& scorer = scorers_[chosen];
  if (scorer == nullptr) scorer = scorers::Scorer::Create(chosen);
  return scorer.get();
}

// Completes a policy with narrow tiers by the bundle's bases.
void CheckMixed(CacheSpec& spec, const CacheSpec& manifest) {
  if (spec.bases == nullptr) spec.bases = manifest.bases;
  const ScorerKind kind =
      spec.method == Method::kStreaming ? ScorerKind::kStreaming : spec.scorer.kind;
  KVC_CHECK(scorers::ScoresAreLosses(kind), kUnsupported,
            "cache: tiers narrower than a row: expected a scorer whose scores are losses (snapkv, "
            "expected-attention, output-error), got {}",
            ScorerName(kind));
}

std::unique_ptr<Sequence> CpuSession::NewSequence(const SequenceOptions& options) {
  const CacheSpec& manifest = bundle_->manifest().cache;
  CacheSpec spec = options.cache.value_or(manifest);
  CheckSameGeometry(spec, manifest);
  KVC_CHECK(options.chunk > 0 && options.reserve >= 0, kUsage,
            "sequence: expected a chunk of 1 or more tokens, got {}", options.chunk);
  if (options.decode == DecodePolicy::kAppend) {
    // What only serves re-allocation would take rows from the prompt's tokens.
    spec.margin = 0;
    spec.query_ring = 0;
  }
  if (spec.mixed()) CheckMixed(spec, manifest);
  const scorers::Scorer* scorer = ScorerOf(spec);
  const bool can_turn = !KeysBehindRotation(bundle_->manifest().model.keys.layout);
  KVC_CHECK(scorer == nullptr || !scorer->needs_prompt_queries() || can_turn, kUnsupported,
            "cache: scorer: expected one that does not turn queries to later positions, got {}; "
            "the keys are thin behind their rotation, use snapkv or another",
            ToString(spec.scorer));
  const bool wants_queries = scorer != nullptr && (scorer->needs_queries() ||
                                                   scorer->needs_prompt_queries() || spec.mixed());
  KVC_CHECK(!wants_queries || options.decode == DecodePolicy::kAppend || spec.query_ring > 0,
            kBadInput, "cache: query_ring: expected 1 or more to re-allocate by {}, got 0",
            ToString(spec.scorer));
  return std::make_unique<CachedSequence>(
      std::make_unique<SequenceCache>(std::move(spec), options.reserve, device_), options, scorer);
}

LayerScoring CpuSession::Scoring(const CachedSequence& sequence,
                                 const AttentionStep& step,
                                 ConstMatrixF prompt_queries) {
  LayerScoring scoring;
  scoring.scorer = sequence.scorer();
  scoring.attention = &step;
  scoring.rebuild = bundle_->prepared().rebuild(step.layer);
  scoring.cos = bundle_->prepared().cos();
  scoring.sin = bundle_->prepared().sin();
  scoring.rope_frequencies = bundle_->rope_frequencies();
  scoring.prompt_queries = prompt_queries;
  if (scoring.scorer->needs_output() || sequence.cache().spec().mixed())
    scoring.output_grams = bundle_->prepared().output_grams(step.layer, pool_);
  scoring.pool = &pool_;
  return scoring;
}

void CpuSession::CheckPrompt(std::span<CachedSequence* const> sequences,
                             std::span<const int32_t> ids,
                             MatrixF logits) const {
  const auto length = static_cast<int64_t>(ids.size());  // T
  KVC_CHECK(!sequences.empty(), kUsage, "prefill: expected a sequence, got none");
  for (const CachedSequence* sequence : sequences) {
    KVC_CHECK(sequence->length() == 0, kUsage, "prefill: expected an empty sequence");
    KVC_CHECK(sequence->chunk() == sequences[0]->chunk() &&
                  sequence->cache().spec().dtype == sequences[0]->cache().spec().dtype,
              kUsage, "prefill: expected sequences of one dtype and chunk");
  }
  KVC_CHECK(length > 0 && length <= context_length(), kBadInput,
            "prompt: expected 1 to {} tokens, got {}; shorten it", context_length(), length);
  CheckIds(ids);
  KVC_CHECK((logits.rows == 1 || logits.rows == length) && logits.cols == plan_.vocab_size,
            kBadShape, "prefill: expected logits [1 or {}, {}], got [{}, {}]", length,
            plan_.vocab_size, logits.rows, logits.cols);
}

void CpuSession::Prefill(std::span<Sequence* const> sequences,
                         std::span<const int32_t> ids,
                         MatrixF logits) {
  std::vector<CachedSequence*> cached;
  for (Sequence* sequence : sequences) cached.push_back(static_cast<CachedSequence*>(sequence));
  CheckPrompt(cached, ids, logits);
  const auto length = static_cast<int64_t>(ids.size());  // T
  const int64_t chunk = cached[0]->chunk();
  std::vector<float> storage(static_cast<size_t>(length * plan_.model_width));
  const MatrixF hidden(storage.data(), length, plan_.model_width);  // [T, E]
  std::vector<int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const auto for_chunks = [&](int64_t section, int64_t begin, MatrixF out) {
    for (int64_t t = begin; t < length; t += chunk) {
      const int64_t rows = std::min(chunk, length - t);
      RowBatch batch;
      batch.ids = ids.subspan(t, rows);
      batch.positions = std::span(positions).subspan(t, rows);
      batch.hidden = hidden.RowRange(t, rows);
      if (out.rows > 0) batch.logits = out.RowRange(t - begin, rows);
      executor_.RunSection(section, batch, {});
    }
  };
  for_chunks(0, 0, {});
  for (int64_t layer = 0; layer < std::ssize(plan_.attentions); ++layer) {
    PrefillLayer(cached, layer, hidden);
  }
  for (CachedSequence* sequence : cached) CompressModel(sequence->cache());
  for_chunks(std::ssize(plan_.sections) - 1, length - logits.rows, logits);
  for (CachedSequence* sequence : cached) sequence->cache().set_length(length);
}

// Gives a layer its working blocks, and the ring that its scorer needs.
void BeginLayer(CachedSequence& sequence, int64_t layer, ConstMatrixF hidden) {
  SequenceCache& cache = sequence.cache();
  const scorers::Scorer* scorer = sequence.scorer();
  const bool by_window = scorer != nullptr && (scorer->needs_queries() || cache.spec().mixed());
  const int64_t window = std::max<int64_t>(cache.spec().window, 1);
  cache.BeginLayer(layer, hidden.rows, by_window ? window : 0);
  if (scorer != nullptr && scorer->needs_output()) {
    cache.layer(layer).residual_energy = ResidualEnergy(hidden, window);
  }
}

void CpuSession::PrefillLayer(std::span<CachedSequence* const> sequences,
                              int64_t layer,
                              MatrixF hidden) {
  const AttentionStep& step = plan_.attentions[layer];
  bool by_prompt = false;
  for (CachedSequence* sequence : sequences) {
    BeginLayer(*sequence, layer, hidden);
    const scorers::Scorer* scorer = sequence->scorer();
    by_prompt = by_prompt || (scorer != nullptr && scorer->needs_prompt_queries());
  }
  std::vector<float> storage;
  MatrixF prompt_queries;  // [T, H * W], only where a scorer asks for it
  std::vector<int32_t> positions(static_cast<size_t>(hidden.rows));
  std::iota(positions.begin(), positions.end(), 0);
  int64_t first = 0;
  const AttentionFunction attention = [&](const AttentionStep&, ConstMatrixF q, ConstMatrixF k,
                                          ConstMatrixF v, MatrixF out) {
    if (by_prompt) {
      storage.resize(static_cast<size_t>(hidden.rows * q.cols));
      prompt_queries = {storage.data(), hidden.rows, q.cols};
      for (int64_t t = 0; t < q.rows; ++t) {
        std::copy_n(q.row(t), q.cols, prompt_queries.row(first + t));
      }
    }
    for (CachedSequence* sequence : sequences) {
      LayerCache& cache = sequence->cache().layer(layer);
      if (!sequence->cache().spec().full()) PushQueries(q, QueryStride(step, q), cache.queries);
      StoreRows(cache, step, k, v, first);
    }
    PrefillAttend(sequences[0]->cache().layer(layer), step, first, q, out);
  };
  const int64_t chunk = sequences[0]->chunk();
  for (; first < hidden.rows; first += chunk) {
    const int64_t rows = std::min(chunk, hidden.rows - first);
    RowBatch batch;
    batch.positions = std::span(positions).subspan(first, rows);
    batch.hidden = hidden.RowRange(first, rows);
    executor_.RunSection(1 + layer, batch, attention);
  }
  PromptScores shared;
  for (CachedSequence* sequence : sequences) {
    if (sequence->cache().spec().full()) continue;
    const LayerScoring scoring = Scoring(*sequence, step, prompt_queries);
    sequence->Charge(CompressLayer(scoring, sequence->cache(), shared));
  }
}

// Attention of a chunk's queries, the first at position `first`, over the working blocks.
void CpuSession::PrefillAttend(const LayerCache& cache,
                               const AttentionStep& step,
                               int64_t first,
                               ConstMatrixF q,
                               MatrixF out) {
  const int64_t group_size = step.num_heads / step.num_kv_heads;
  const int64_t planes = step.num_kv_heads / std::ssize(cache.groups);
  const int64_t stride = QueryStride(step, q);
  const int64_t value_width = out.cols / step.num_heads;
  const auto rebuild = bundle_->prepared().rebuild(step.layer);
  std::vector<kernels::PrefillHead> heads(static_cast<size_t>(step.num_kv_heads));
  for (int64_t g = 0; g < step.num_kv_heads; ++g) {
    const CacheBlock& block = cache.groups[g / planes].recent;
    kernels::PrefillHead& head = heads[g];
    head.keys = KeysOf(block);
    head.values = ValuesOf(block, g % planes);
    head.rebuild = step.latent ? &rebuild[g] : nullptr;
    const int64_t width = step.latent ? stride : step.key_ranks[g];
    for (int64_t h = g * group_size; h < (g + 1) * group_size; ++h) {
      head.queries.push_back(q.ColRange(h * stride, width));
      head.outputs.push_back(out.ColRange(h * value_width, value_width));
    }
  }
  kernels::PrefillAttention(heads, first, step.scale, pool_);
}

void CpuSession::MakeRoom(CachedSequence& sequence, const AttentionStep& step) {
  SequenceCache& cache = sequence.cache();
  LayerCache& layer = cache.layer(step.layer);
  if (!layer.groups[0].recent.full()) return;
  if (!cache.spec().full() && sequence.policy() == DecodePolicy::kReallocate) {
    const double start = ProcessorSeconds();
    LayerScoring scoring = Scoring(sequence, step, {});
    if (cache.spec().mixed()) {
      // Neighbours in the tiers are no neighbours in the text: nothing is pooled over them.
      CacheSpec alone = cache.spec();
      alone.scorer.options.pool = 1;
      scoring.scorer = ScorerOf(alone);
    }
    std::vector<GroupScores> fresh = ScoreLayer(scoring, cache);
    const std::vector<int64_t> tier_rows = TierRows(cache, step.layer, cache.length());
    ApplyMoves(DecideReallocation(cache.spec(), step.layer, cache.length(), RowsOf(layer), fresh,
                                  tier_rows),
               step.layer, cache);
    sequence.Charge(ProcessorSeconds() - start);
    return;
  }
  ApplyMoves(DecideGrowth(cache.spec(), RowsOf(layer)), step.layer, cache);
}

void CpuSession::Decode(std::span<Sequence* const> sequences,
                        std::span<const int32_t> ids,
                        MatrixF logits) {
  const auto batch_size = static_cast<int64_t>(sequences.size());  // B
  KVC_CHECK(sequences.size() == ids.size() && logits.rows == batch_size &&
                logits.cols == plan_.vocab_size,
            kBadShape, "decode: expected one id and one row of logits for each of {} sequences",
            batch_size);
  if (batch_size == 0) return;
  CheckIds(ids);
  std::vector<CachedSequence*> cached;
  std::vector<int32_t> positions;
  for (Sequence* sequence : sequences) {
    cached.push_back(static_cast<CachedSequence*>(sequence));
    const int64_t length = sequence->length();
    KVC_CHECK(length > 0, kUsage, "decode: expected a sequence with a prompt");
    KVC_CHECK(length < context_length(), kBadInput,
              "sequence: expected at most {} tokens, got one more", context_length());
    positions.push_back(static_cast<int32_t>(length));
  }
  std::vector<float> storage(static_cast<size_t>(batch_size * plan_.model_width));
  RowBatch batch;
  batch.ids = ids;
  batch.positions = positions;
  batch.hidden = {storage.data(), batch_size, plan_.model_width};
  batch.logits = logits;
  const AttentionFunction attention = [&](const AttentionStep& step, ConstMatrixF q, ConstMatrixF k,
                                          ConstMatrixF v, MatrixF out) {
    decode_.Start(step, bundle_->prepared().rebuild(step.layer));
    for (int64_t b = 0; b < batch_size; ++b) {
      MakeRoom(*cached[b], step);
      SequenceCache& cache = cached[b]->cache();
      if (!cache.spec().full()) {
        PushQueries(q.RowRange(b, 1), QueryStride(step, q), cache.layer(step.layer).queries);
      }
      decode_.Store(cache, k.RowRange(b, 1), v.RowRange(b, 1), positions[b]);
      decode_.Add(cache, q.RowRange(b, 1), out.RowRange(b, 1));
    }
    decode_.Attend(pool_);
  };
  for (int64_t section = 0; section < std::ssize(plan_.sections); ++section) {
    executor_.RunSection(section, batch, attention);
  }
  for (CachedSequence* sequence : cached) sequence->cache().set_length(sequence->length() + 1);
}

}  // namespace

std::unique_ptr<Session> Session::Create(std::shared_ptr<const Bundle> bundle, ThreadPool& pool) {
  return std::make_unique<CpuSession>(std::static_pointer_cast<const LoadedBundle>(bundle), pool);
}

}  // namespace kvc::runtime
