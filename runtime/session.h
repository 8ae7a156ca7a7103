#pragma once
// A bundle, loaded, and the sequences that run through it. What kvc-run, kvc-eval, kvc-bench and
// the verification of kvc-export are made of.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "core/cache/cache_spec.h"

namespace kvc {
struct Manifest;  // core/cache/manifest.h
}

namespace kvc::runtime {

struct LoadOptions {
  bool check_hashes = false;  // sizes are always checked
  bool pack_weights = true;   // kernels::PackedWeight's lossless bf16
};

// What happens to new tokens when the recent block is full.
enum class DecodePolicy {
  kReallocate,  // its oldest are re-allocated into the tiers: the budget holds
  kAppend,      // the recent block grows: nothing that comes after the prompt is dropped; the rows
                // of the margin go to tokens of the prompt, and no query ring is kept
};

struct CacheCounters {
  int64_t full_bytes = 0;  // of the original model, same dtype and tokens
  int64_t logical_bytes = 0;
  int64_t allocated_bytes = 0;  // summed over live allocations
  int64_t peak_bytes = 0;       // highest allocated_bytes since the sequence began
  // With narrow tiers: tokens at full width (the recent ones too), in each narrower tier, and
  // dropped, summed over the groups of all layers; else empty.
  std::vector<int64_t> tier_tokens;
  // Processor time, all threads, that choosing what is kept has taken so far, scores included.
  double choosing_seconds = 0.0;

  void AddTierTokens(const CacheCounters& other);
  // tier_tokens as shares of their sum.
  [[nodiscard]] std::vector<double> TierShares() const;
};

// The mapped model and its plan. Immutable after loading; sequences borrow it.
class Bundle {
 public:
  // Throws kBadInput / kVerification naming the field in which file and manifest differ,
  // kUnsupported naming the node of an operator that the plan cannot hold.
  static std::shared_ptr<const Bundle> Load(const std::filesystem::path& directory,
                                            const LoadOptions& options,
                                            ThreadPool& pool);
  virtual ~Bundle() = default;
  [[nodiscard]] virtual const Manifest& manifest() const = 0;
  [[nodiscard]] virtual const std::filesystem::path& directory() const = 0;
};

// One sequence and its cache.
class Sequence {
 public:
  virtual ~Sequence() = default;
  [[nodiscard]] virtual int64_t length() const = 0;
  [[nodiscard]] virtual CacheCounters counters() const = 0;
  // A copy with its own cache: one prefill serves several continuations.
  [[nodiscard]] virtual std::unique_ptr<Sequence> Clone() const = 0;
};

struct SequenceOptions {
  std::optional<CacheSpec> cache;  // instead of the manifest's: another budget or method
  DecodePolicy decode = DecodePolicy::kReallocate;
  int64_t chunk = 512;  // tokens of a prefill chunk
  int64_t reserve = 0;  // kFull: rows to allocate from the start (prompt + new tokens)
};

class Session {
 public:
  static std::unique_ptr<Session> Create(std::shared_ptr<const Bundle> bundle, ThreadPool& pool);
  virtual ~Session() = default;

  [[nodiscard]] virtual const Bundle& bundle() const = 0;
  [[nodiscard]] virtual std::unique_ptr<Sequence> NewSequence(const SequenceOptions& options) = 0;
  // The whole prompt, layer by layer: each layer's cache is compressed before the next layer
  // starts. The sequences must be empty and get the same prompt, each its own cache: several
  // policies cost one pass, because what a policy drops changes nothing before decoding. logits:
  // [1, V] of the last token, or [T, V] of all of them; rows decide. Throws kBadInput for ids
  // outside the vocabulary and prompts beyond the context length, kUsage for sequences that are not
  // empty, or of different dtypes or chunks.
  virtual void Prefill(std::span<Sequence* const> sequences,
                       std::span<const int32_t> ids,
                       MatrixF logits) = 0;
  void Prefill(Sequence& sequence, std::span<const int32_t> ids, MatrixF logits) {
    Sequence* const one[] = {&sequence};
    Prefill(std::span<Sequence* const>(one), ids, logits);
  }
  // One token for each of B sequences of any lengths; logits [B, V].
  virtual void Decode(std::span<Sequence* const> sequences,
                      std::span<const int32_t> ids,
                      MatrixF logits) = 0;
};

}  // namespace kvc::runtime
