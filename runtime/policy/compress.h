#pragma once
// What is kept: the end of a layer's prefill, and the re-allocation when a recent block is full.
//
// Sinks and the newest `window` tokens are always kept. Of the others a group keeps those of the
// highest scores; ties go to the older token. With narrow tiers runtime/policy/tiering.h chooses.

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/cache/kv_cache.h"
#include "runtime/cpu/scoring.h"

namespace kvc::runtime {

// Indices of the `count` highest scores, ascending.
[[nodiscard]] std::vector<int64_t> SelectTop(std::span<const float> scores, int64_t count);

// Ada-KV [AdaKV]: rows of each group of a layer. The rows beyond `fixed` (sinks, window and margin,
// which every group has) go to the highest scores of all groups together; then each group's count
// is mixed with its even budget, share `safeguard`. scores: [n][candidates]; the sum of the
// rows stays that of `rows`.
inline constexpr double kAdaSafeguard = 0.2;
[[nodiscard]] std::vector<int64_t> AdaRows(std::span<const std::vector<float>> scores,
                                           std::span<const int64_t> rows,
                                           int64_t fixed,
                                           int64_t most,
                                           double safeguard = kAdaSafeguard);

// Scores of one layer's working blocks for caches that all hold the same prompt: those that ask
// for the same, at whatever budgets, share them.
class PromptScores {
 public:
  struct Scored {
    std::vector<GroupScores> groups;  // ScoreLayer's
    double seconds = 0.0;             // processor time that they took
  };
  // Borrows the cache's spec. The result is good until the next call.
  [[nodiscard]] const Scored& Of(const LayerScoring& scoring, const SequenceCache& cache);

 private:
  struct Entry {
    const scorers::Scorer* scorer = nullptr;
    const CacheSpec* spec = nullptr;
    Scored scored;
  };
  std::vector<Entry> entries_;
};

// Turns the working blocks of a layer that holds the whole prompt into tiers and a recent block,
// and frees them. With kAdaModel it only scores the layer: CompressModel does the rest when all
// layers are there, so that the whole prompt is in memory until then. Returns the processor
// seconds that this takes a cache on its own, shared scores included.
double CompressLayer(const LayerScoring& scoring, SequenceCache& cache, PromptScores& shared);

// The end of a prompt behind the last layer. kAdaModel: one threshold for the scores of all groups
// of the model decides how many rows each gets, without a safeguard, because such scores are
// comparable; then every layer is compressed. Nothing with other methods.
void CompressModel(SequenceCache& cache);

// Makes room in every full recent block of a layer: its oldest tokens compete with those in the
// tiers by max(stored score, fresh score) for the rows of the sequence's length. `length`: tokens
// cached so far.
void ReallocateLayer(const LayerScoring& scoring, SequenceCache& cache, int64_t length);

}  // namespace kvc::runtime
