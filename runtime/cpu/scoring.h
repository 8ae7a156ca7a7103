#pragma once
// Scores of cached tokens for a whole layer: brings what the cache holds into the form that
// scorers::Scorer takes, one kv head at a time on each thread.

#include <span>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "kernels/attention.h"
#include "kernels/rounding.h"
#include "runtime/backend.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cpu/cpu_model.h"
#include "runtime/plan/plan.h"
#include "scorers/scorer.h"

namespace kvc::runtime {

struct LayerScoring {
  const scorers::Scorer* scorer = nullptr;
  const AttentionStep* attention = nullptr;
  std::span<const kernels::KeyRebuild> rebuild;  // [G]; of latents as the model has them
  // [G]; of latents in the cache's coordinates, which are the same where it has none for latents
  std::span<const kernels::KeyRebuild> from_coordinates;
  ConstMatrixF cos, sin;   // rotation of the queries; no rows: none
  LayerRotation rotation;  // the same as numbers
  // Queries of the whole prompt as they enter the dot product [T, H * width]; no rows: the ring's
  // stand for them.
  ConstMatrixF prompt_queries;
  // [H]; empty where neither the scorer nor narrow tiers ask for them.
  std::span<const ConstMatrixF> output_grams;
  ThreadPool* pool = nullptr;
  kernels::InputRounding rounding = kernels::InputRounding::kNone;  // of what meets bf16 rows
};

// What a backend's request asks of a model, for a cache of `spec`. prompt_queries: of the whole
// prompt [T, H * width]; no rows: the ring's stand for them.
[[nodiscard]] LayerScoring MakeScoring(const ScoreRequest& request,
                                       const CpuModel& model,
                                       const CacheSpec& spec,
                                       ConstMatrixF prompt_queries,
                                       ThreadPool& pool,
                                       kernels::InputRounding rounding);

// The mean squared norm of the last `window` rows of x [T, E], or of all where there are fewer.
[[nodiscard]] double MeanSquaredNorm(ConstMatrixF x, int64_t window);

// Fills the coordinates of a layer whose working blocks hold the prompt: the principal axes of each
// head's keys and values. groups: the layer's.
void FindCoordinates(const std::vector<CacheGroup>& groups,
                     const LayerCache& layer,
                     ThreadPool& pool);

// Combines what was found of each plane of each group, [n][planes], to what is said of the group:
// scores by scorers::CombineHeads, losses added.
[[nodiscard]] std::vector<GroupScores> CombinePlanes(const scorers::Scorer& scorer,
                                                     std::vector<std::vector<GroupScores>> groups);

// For each group the scores of its tokens, tiers first, then the recent block, and the losses of
// tiers (scorers/tier_loss.h) with the scorer's reduction over queries. Where rows are latents or
// in coordinates, keys and values are made in scratch buffers of one head, freed afterwards.
[[nodiscard]] std::vector<GroupScores> ScoreLayer(const LayerScoring& scoring,
                                                  const CacheSpec& spec,
                                                  const LayerCache& layer);

}  // namespace kvc::runtime
