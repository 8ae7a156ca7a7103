#pragma once
// Sequences that run through a bundle on a backend. kvc-run, kvc-eval, kvc-bench and the
// verification of kvc-export are built on sessions.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "core/cache/cache_spec.h"
#include "runtime/bundle.h"
#include "runtime/create_backend.h"
#include "runtime/sequence.h"

namespace kvc {
class Rng;  // core/base/rng.h
}  // namespace kvc
namespace kvc::kernels {
struct SamplingOptions;  // kernels/sampling.h
}  // namespace kvc::kernels

namespace kvc::runtime {

class Activations;   // runtime/backend.h
class PromptScores;  // runtime/policy/prompt_scores.h
struct LayerMoves;   // runtime/cache/row_moves.h
struct RowBatch;     // runtime/backend.h

// Order, checks and budgets of a pass through the model; the backend computes the numbers. A
// session holds no float of the model and no pointer to a cache's rows; only logits reach the
// caller.
//
// One thread at a time may use a session and the sequences that are given to it. Sessions of one
// bundle on backends of one name share the prepared model. Several sessions, also on several
// threads, may share a thread pool, whose loops then take turns.
class Session {
 public:
  // Creates a session. Throws kDevice for a device without a backend.
  static std::unique_ptr<Session> Create(std::shared_ptr<const Bundle> bundle,
                                         const RuntimeOptions& options);
  // Creates a session on the processor, with the caller's threads; the pool must outlive session
  // and sequences.
  static std::unique_ptr<Session> Create(std::shared_ptr<const Bundle> bundle, ThreadPool& pool) {
    RuntimeOptions options;
    options.pool = &pool;
    return Create(std::move(bundle), options);
  }
  Session(std::shared_ptr<const Bundle> bundle, std::shared_ptr<Backend> backend);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  [[nodiscard]] const Bundle& bundle() const { return *bundle_; }
  // Returns the most tokens that a sequence of it may have.
  [[nodiscard]] int64_t context_length() const;
  // The device of its sequences' caches, and the most bytes of its own memory that kvc has held
  // (runtime/device.h).
  [[nodiscard]] std::string_view device_name() const;
  [[nodiscard]] std::optional<int64_t> peak_device_bytes() const;
  // Sets what Prefill and Extend call in front of every chunk of a layer (Extend: of the model),
  // the place to interrupt a long prompt: they end with what it throws. A sequence whose Prefill
  // was interrupted is empty again; one whose Extend was has the chunks in front.
  void set_checkpoint(std::function<void()> checkpoint) { checkpoint_ = std::move(checkpoint); }
  // Makes an empty sequence. Throws kBadShape for a policy of another geometry, kBadInput and
  // kUnsupported for one that contradicts itself or the model, kUsage for a chunk below 1.
  [[nodiscard]] std::unique_ptr<Sequence> NewSequence(const SequenceOptions& options);
  // The whole prompt, layer by layer: each layer's cache is compressed before the next layer
  // starts. The sequences must be empty and get the same prompt, each its own cache: several
  // policies cost one pass, because what a policy drops changes nothing before decoding. logits:
  // [1, V] of the last token, or [T, V] of all of them; rows decide. Throws kBadInput for ids
  // outside the vocabulary and prompts beyond the context length, kUsage for sequences that are not
  // empty, or of different cache dtypes or chunks, or of another backend, kDevice, need and have
  // named, where the device has no room for it.
  void Prefill(std::span<Sequence* const> sequences, std::span<const int32_t> ids, MatrixF logits);
  void Prefill(Sequence& sequence, std::span<const int32_t> ids, MatrixF logits) {
    Sequence* const one[] = {&sequence};
    Prefill(std::span<Sequence* const>(one), ids, logits);
  }
  // Continues a sequence by T tokens: the next turn of a conversation goes onto the cache that is
  // there. The cache is what decoding the tokens one by one would make of it, so that its budget
  // holds at every token; a backend that AttendsByRow goes through each layer once for a chunk of
  // them. logits: [1, V] of the last token, or [T, V]; rows decide. Throws kUsage for a sequence
  // without a prompt, kBadInput for ids outside the vocabulary, no ids, and more than the context
  // has room for.
  void Extend(Sequence& sequence, std::span<const int32_t> ids, MatrixF logits);
  // Decodes one token for each of B sequences of any lengths; logits [B, V]. A step in which no
  // recent block is full allocates nothing beyond what an earlier step of as many sequences
  // allocated.
  void Decode(std::span<Sequence* const> sequences, std::span<const int32_t> ids, MatrixF logits);
  // The same step, but draws the next token of each sequence as kernels::SampleToken does, from
  // rngs [B]: next [B], below 0 where the logits hold a NaN. Logits stay on a device that can draw
  // there.
  void DecodeTokens(std::span<Sequence* const> sequences,
                    std::span<const int32_t> ids,
                    const kernels::SamplingOptions& options,
                    std::span<Rng* const> rngs,
                    std::span<int32_t> next);

 private:
  void CheckIds(std::span<const int32_t> ids) const;
  [[nodiscard]] std::shared_ptr<const scorers::Scorer> ScorerOf(const CacheSpec& spec);
  void CheckPrompt(std::span<Sequence* const> sequences,
                   std::span<const int32_t> ids,
                   MatrixF logits) const;
  void CheckRoom(std::span<Sequence* const> sequences,
                 int64_t length,
                 int64_t chunk,
                 int64_t logits) const;
  void PrefillLayer(std::span<Sequence* const> sequences,
                    int64_t layer,
                    std::span<const int32_t> positions,
                    Activations& x);
  void BeginLayer(Sequence& sequence, int64_t layer, int64_t length, const Activations& x);
  void CompressLayer(Sequence& sequence,
                     int64_t layer,
                     int64_t length,
                     const Activations* prompt,
                     PromptScores& shared);
  void CompressModel(Sequence& sequence, int64_t length);
  void MakeRoom(Sequence& sequence, int64_t layer);
  void Reallocate(Sequence& sequence, int64_t layer);
  void CheckExtension(const Sequence& sequence, std::span<const int32_t> ids, MatrixF logits) const;
  void ExtendByChunk(Sequence& sequence,
                     std::span<const int32_t> ids,
                     Activations& x,
                     MatrixF logits);
  void ExtendByStep(Sequence& sequence, int32_t id, MatrixF logits);
  void CheckStep(std::span<Sequence* const> sequences, std::span<const int32_t> ids) const;
  [[nodiscard]] RowBatch RunStep(std::span<Sequence* const> sequences,
                                 std::span<const int32_t> ids);
  void EndStep();

  std::shared_ptr<const Bundle> bundle_;  // before model_, which points into it
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const PreparedModel> model_;
  std::map<ScorerSpec, std::shared_ptr<const scorers::Scorer>> scorers_;
  std::function<void()> checkpoint_ = [] {};
  // State that decoding keeps from step to step.
  std::unique_ptr<Activations> step_;
  int64_t step_rows_ = 0;               // that step_ has room for
  std::vector<int32_t> positions_;      // [B]
  std::vector<SequenceCache*> caches_;  // [B]
  std::vector<float> logits_;           // [B, V], where tokens are drawn on the host
};

}  // namespace kvc::runtime
