#include "runtime/session.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/base/processor_time.h"
#include "core/cache/manifest.h"
#include "runtime/apply_decision.h"
#include "runtime/backend.h"
#include "runtime/memory_need.h"
#include "runtime/policy/decide.h"
#include "runtime/policy/prompt_scores.h"
#include "runtime/policy/spread.h"
#include "scorers/tier_loss.h"

namespace kvc::runtime {
namespace {

bool SameFormats(const CacheGeometry& a, const CacheGeometry& b) {
  return a.key_format == b.key_format && a.value_format == b.value_format;
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

// Queries that a layer's prompt is scored by, for which its ring has room at least.
int64_t LeastQueries(const scorers::Scorer* scorer, const CacheSpec& spec) {
  const bool by_window = scorer != nullptr && (scorer->needs_queries() || spec.has_narrow_tiers());
  return by_window ? std::max<int64_t>(spec.window, 1) : 0;
}

// Turns a layer's working blocks into tiers and recent blocks.
void BuildLayer(Backend& backend,
                int64_t layer,
                int64_t length,
                std::vector<GroupScores> scores,
                SequenceCache& cache) {
  const std::vector<int64_t> rows = TierRows(cache, layer, length);
  ApplyDecision(backend, DecidePrompt(cache.spec(), layer, length, scores, rows), layer, length,
                cache);
}

// The end of a prompt of `length` tokens in a layer with a window: the working blocks are left what
// the layer sees of it. Returns true if nothing else is to be decided.
bool LeaveWindow(Backend& backend, int64_t layer, int64_t length, SequenceCache& cache) {
  const CacheSpec& spec = cache.spec();
  const bool holds = HoldsWindow(spec, layer);
  if (length > spec.SeenTokens(layer, length) || (holds && !spec.full())) {
    backend.Apply(DecideWindow(spec, layer, length), layer, cache);
  }
  return holds;
}

}  // namespace

std::unique_ptr<Session> Session::Create(std::shared_ptr<const Bundle> bundle,
                                         const RuntimeOptions& options) {
  return std::make_unique<Session>(std::move(bundle), CreateBackend(options));
}

Session::Session(std::shared_ptr<const Bundle> bundle, std::shared_ptr<Backend> backend)
    : bundle_(std::move(bundle)),
      backend_(std::move(backend)),
      model_(bundle_->PreparedFor(*backend_)) {}

Session::~Session() = default;

std::string_view Session::device_name() const { return backend_->device().name(); }

std::optional<int64_t> Session::peak_device_bytes() const {
  return backend_->device().peak_bytes();
}

int64_t Session::context_length() const {
  return std::min(bundle_->plan().max_positions, bundle_->manifest().model.context_length);
}

void Session::CheckIds(std::span<const int32_t> ids) const {
  const int64_t vocabulary = bundle_->plan().vocab_size;
  for (size_t i = 0; i < ids.size(); ++i) {
    KVC_CHECK(ids[i] >= 0 && ids[i] < vocabulary, kBadInput,
              "token {}: expected an id below {}, got {}", i, vocabulary, ids[i]);
  }
}

std::shared_ptr<const scorers::Scorer> Session::ScorerOf(const CacheSpec& spec) {
  if (spec.full()) return nullptr;
  const ScorerSpec chosen =
      spec.method == Method::kStreaming ? ScorerSpec(ScorerKind::kStreaming) : spec.scorer;
  auto& scorer = scorers_[chosen];
  if (scorer == nullptr) scorer = scorers::Scorer::Create(chosen);
  return scorer;
}

std::unique_ptr<Sequence> Session::NewSequence(const SequenceOptions& options) {
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
  if (spec.has_narrow_tiers()) CheckMixed(spec, manifest);
  backend_->CheckFormats(spec);
  std::shared_ptr<const scorers::Scorer> scorer = ScorerOf(spec);
  const bool can_turn = !KeysBehindRotation(bundle_->manifest().model.keys.layout);
  KVC_CHECK(scorer == nullptr || !scorer->needs_prompt_queries() || can_turn, kUnsupported,
            "cache: scorer: expected one that does not turn queries to later positions, got {}; "
            "the keys are thin behind their rotation, use snapkv or another",
            ToString(spec.scorer));
  const bool wants_queries =
      scorer != nullptr &&
      (scorer->needs_queries() || scorer->needs_prompt_queries() || spec.has_narrow_tiers());
  KVC_CHECK(!wants_queries || options.decode == DecodePolicy::kAppend || spec.query_ring > 0,
            kBadInput, "cache: query_ring: expected 1 or more to re-allocate by {}, got 0",
            ToString(spec.scorer));
  auto cache =
      std::make_unique<SequenceCache>(std::move(spec), options.reserve, backend_->device());
  return std::make_unique<Sequence>(backend_, std::move(cache), options, std::move(scorer));
}

void Session::CheckPrompt(std::span<Sequence* const> sequences,
                          std::span<const int32_t> ids,
                          MatrixF logits) const {
  const auto length = static_cast<int64_t>(ids.size());  // T
  KVC_CHECK(!sequences.empty(), kUsage, "prefill: expected a sequence, got none");
  for (const Sequence* sequence : sequences) {
    KVC_CHECK(sequence->backend_->name() == backend_->name(), kUsage,
              "prefill: expected a sequence on {}, got one on {}", backend_->name(),
              sequence->backend_->name());
    KVC_CHECK(sequence->length() == 0, kUsage, "prefill: expected an empty sequence");
    KVC_CHECK(sequence->options_.chunk == sequences[0]->options_.chunk &&
                  SameFormats(sequence->cache().spec(), sequences[0]->cache().spec()),
              kUsage, "prefill: expected sequences of one cache dtype and chunk");
  }
  KVC_CHECK(length > 0 && length <= context_length(), kBadInput,
            "prompt: expected 1 to {} tokens, got {}; shorten it", context_length(), length);
  CheckIds(ids);
  const int64_t vocabulary = bundle_->plan().vocab_size;
  KVC_CHECK((logits.rows == 1 || logits.rows == length) && logits.cols == vocabulary, kBadShape,
            "prefill: expected logits [1 or {}, {}], got [{}, {}]", length, vocabulary, logits.rows,
            logits.cols);
}

void Session::CheckRoom(std::span<Sequence* const> sequences,
                        int64_t length,
                        int64_t chunk,
                        int64_t logits) const {
  const std::optional<int64_t> have = backend_->device().FreeBytes();
  if (!have) return;  // the host's: nothing to predict
  std::vector<PromptCache> caches;
  for (const Sequence* sequence : sequences) {
    const CacheSpec& spec = sequence->cache().spec();
    const scorers::Scorer* scorer = sequence->scorer_.get();
    caches.push_back({&spec, sequence->options_.reserve, LeastQueries(scorer, spec),
                      scorer != nullptr && scorer->needs_prompt_queries()});
  }
  const int64_t need = PromptBytes(bundle_->plan(), caches, length, chunk, logits);
  KVC_CHECK(need <= *have, kDevice,
            "device memory: expected {} free bytes for a prompt of {} tokens, got {}; give the "
            "cache a smaller budget, or shorten the prompt",
            need, length, *have);
}

void Session::Prefill(std::span<Sequence* const> sequences,
                      std::span<const int32_t> ids,
                      MatrixF logits) {
  CheckPrompt(sequences, ids, logits);
  const Plan& plan = bundle_->plan();
  const auto length = static_cast<int64_t>(ids.size());  // T
  const int64_t chunk = std::min(sequences[0]->options_.chunk, length);
  CheckRoom(sequences, length, chunk, logits.rows);
  std::vector<int32_t> positions(ids.size());  // as rows of the model's tables
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(RotationRow(plan, 0, length)));
  const bool by_prompt = std::ranges::any_of(sequences, [](const Sequence* sequence) {
    return sequence->scorer_ != nullptr && sequence->scorer_->needs_prompt_queries();
  });
  const auto x = backend_->NewActivations(model_, {length, chunk, by_prompt, false});
  const auto batch_at = [&](int64_t t) {
    const auto rows = static_cast<size_t>(std::min(chunk, length - t));
    return RowBatch{ids.subspan(t, rows), std::span(positions).subspan(t, rows), t};
  };
  for (int64_t t = 0; t < length; t += chunk) {
    backend_->Run(0, SectionPart::kWhole, batch_at(t), *x);
  }
  for (int64_t layer = 0; layer < std::ssize(plan.attentions); ++layer) {
    PrefillLayer(sequences, layer, positions, *x);
  }
  for (Sequence* sequence : sequences) CompressModel(*sequence, length);
  const int64_t first = length - logits.rows;
  for (int64_t t = first; t < length; t += chunk) {
    const RowBatch batch = batch_at(t);
    backend_->ReadLogits(batch, *x, logits.RowRange(t - first, std::ssize(batch.ids)));
  }
  for (Sequence* sequence : sequences) {
    backend_->Settle(*sequence->cache_);
    sequence->cache_->set_length(length);
  }
}

void Session::PrefillLayer(std::span<Sequence* const> sequences,
                           int64_t layer,
                           std::span<const int32_t> positions,
                           Activations& x) {
  const int64_t length = std::ssize(positions);
  const int64_t chunk = sequences[0]->options_.chunk;
  for (Sequence* sequence : sequences) BeginLayer(*sequence, layer, length, x);
  for (int64_t t = 0; t < length; t += chunk) {
    checkpoint_();
    const int64_t rows = std::min(chunk, length - t);
    const RowBatch batch = {{}, positions.subspan(t, rows), t};
    backend_->Run(1 + layer, SectionPart::kBeforeAttention, batch, x);
    for (Sequence* sequence : sequences) {
      backend_->Store(layer, {0, rows}, t, x, *sequence->cache_);
    }
    backend_->AttendPrompt(layer, *sequences[0]->cache_, x);
    backend_->Run(1 + layer, SectionPart::kBehindAttention, batch, x);
  }
  PromptScores shared(layer);
  for (Sequence* sequence : sequences) {
    if (LeaveWindow(*backend_, layer, length, *sequence->cache_)) continue;
    if (!sequence->cache().spec().full()) CompressLayer(*sequence, layer, length, &x, shared);
  }
}

// Gives a layer its working blocks, and the ring that its scorer needs.
void Session::BeginLayer(Sequence& sequence, int64_t layer, int64_t length, const Activations& x) {
  SequenceCache& cache = *sequence.cache_;
  const scorers::Scorer* scorer = sequence.scorer_.get();
  cache.BeginLayer(layer, length, LeastQueries(scorer, cache.spec()));
  if (scorer != nullptr && scorer->needs_output()) {
    backend_->FindResidualEnergy(layer, std::max<int64_t>(cache.spec().window, 1), x, cache);
  }
}

// The end of a layer's prompt. With kAdaModel it is only scored: CompressModel does the rest when
// all layers are there, so that the whole prompt is in memory until then.
void Session::CompressLayer(Sequence& sequence,
                            int64_t layer,
                            int64_t length,
                            const Activations* prompt,
                            PromptScores& shared) {
  SequenceCache& cache = *sequence.cache_;
  const CacheSpec& spec = cache.spec();
  const scorers::Scorer* scorer = sequence.scorer_.get();
  const double start = ProcessorSeconds();
  if (spec.has_narrow_tiers()) {
    cache.MakeCoordinates(layer);
    if (spec.basis == TierBasis::kPrompt) backend_->FindCoordinates(layer, cache);
  }
  const double before = ProcessorSeconds();
  const PromptScores::Scored* scored = shared.Find(scorer, spec);
  if (scored == nullptr) {
    ScoreRequest request = {layer, scorer, bundle_->rotation(layer, length), nullptr, false};
    request.prompt = scorer->needs_prompt_queries() ? prompt : nullptr;
    request.wants_output = scorer->needs_output() || spec.has_narrow_tiers();
    PromptScores::Scored fresh;
    if (CountsAreGiven(spec, layer)) fresh.placed = backend_->ScoreInPlace(request, *model_, cache);
    if (fresh.placed == nullptr) fresh.groups = backend_->Score(request, *model_, cache);
    fresh.seconds = ProcessorSeconds() - before;
    scored = &shared.Add(scorer, spec, std::move(fresh));
  }
  const double after = ProcessorSeconds();
  if (scored->placed != nullptr) {
    const LayerRule rule = PromptRule(spec, layer, length, TierRows(cache, layer, length));
    backend_->ApplyRule(rule, *scored->placed, layer, cache);
  } else if (spec.method == Method::kAdaModel) {
    cache.layer(layer).prompt_scores = scored->groups;
  } else {
    SpreadOverLayer(cache, layer, length, scored->groups);
    BuildLayer(*backend_, layer, length, scored->groups, cache);
  }
  // What it takes the cache on its own, shared scores included.
  sequence.choosing_seconds_ += before - start + scored->seconds + ProcessorSeconds() - after;
}

void Session::CompressModel(Sequence& sequence, int64_t length) {
  SequenceCache& cache = *sequence.cache_;
  if (cache.spec().method != Method::kAdaModel || HoldsWindow(cache.spec(), 0)) return;
  SpreadOverModel(cache, length);
  for (int64_t l = 0; l < cache.spec().num_layers(); ++l) {
    BuildLayer(*backend_, l, length, std::move(cache.layer(l).prompt_scores), cache);
  }
}

}  // namespace kvc::runtime
