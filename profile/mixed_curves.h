#pragma once
// LU-KV curves in bytes, with tiers (lukv-mixed): the distance of the attention's output from the
// full cache's when a group may spend a share of its evictable tokens' bytes and every token is in
// one of a few tiers, each a prefix of its coordinates (DESIGN section 6).
//
// The runtime's rule chooses at the end of the context, from the loss of each tier by the window's
// queries (scorers/tier_loss.h), scaled to the scorer's scores, and the allocator at the budget
// (solver/tier_allocator.h). The horizon's queries then measure the error, in the unit of
// profile/output_error.h:
//
//   e = sum over the group's heads h, mean over the horizon's queries i, |(o^_ih - o_ih) W_O^hT|^2
//       / |x_i|^2
//   o^_ih = softmax over the kept keys k^_j of their tiers, times the values v^_j of their tiers
//
// The scores become losses by a map of the group (core/cache/loss_map.h), which is fitted first: to
// the scores of all windows' tokens and to what dropping each of them alone would cost the horizon,
//
//   l_j = mean over the group's heads h, summed over its kv heads, mean over the horizon's queries
//   i,
//         of (a_ij / (1 - a_ij))^2 (v_j - o_i) W_O^hT W_O^h (v_j - o_i)^T / |x_i|^2
//
// A tier costs what TierCosts (core/cache/cache_spec.h) says of the cached key (the latent of a
// group that has one) and of the values of the group's heads.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <torch/types.h>

#include "core/base/ranks.h"
#include "core/cache/cache_bases.h"
#include "core/cache/cache_spec.h"
#include "model/decoder.h"
#include "profile/curve_collector.h"
#include "profile/head_window.h"
#include "profile/loss_map_fit.h"
#include "profile/profile_model.h"
#include "profile/profile_state.h"
#include "profile/tiered_error.h"

namespace kvc::profile {

[[nodiscard]] std::string MixedSum(const std::string& scorer);

// Keeps what a layer's windows show until the layer's bases are known, then adds the curves of
// those scorers whose scores are losses. `config`, `options`, `sums` and `ranks` must outlive it.
// What a window shows stays with the rank that visited it: scores and losses of its tokens go to
// all, each fits some maps, and the curves of all windows are added up in their order.
class MixedCollector {
 public:
  MixedCollector(const ModelConfig& config,
                 const ProfileOptions& options,
                 ProfileSums& sums,
                 Ranks& ranks = OneRank());

  // Adds one window at one layer, with the arguments of CurveCollector; `scores` are by
  // options.scorers.
  void Visit(int64_t layer,
             const model::LayerTaps& taps,
             const model::LayerWeights& weights,
             const torch::Tensor& energy,
             const torch::Tensor& output_grams,
             const WindowScores& scores);
  // Collective: fits the layer's loss maps, or takes those of a finished layer when no rank has
  // visited a window, and sets them in `bases`; adds the curves of the windows seen since the last
  // call.
  void Finish(int64_t layer, LayerBases& bases);

 private:
  struct Window {
    torch::Tensor queries;         // [H, window + horizon, D_k]
    torch::Tensor keys;            // [G, T, D_k]
    torch::Tensor values;          // [G, T, D_v]
    torch::Tensor latents;         // [n, T, max_n R_n], where keys are latents
    int64_t first = 0;             // position of the first of the T tokens
    torch::Tensor weight;          // [horizon], double
    double residual_energy = 0.0;  // mean over the window's queries
    int64_t context = 0;           // of the T tokens; the horizon follows
    std::optional<int64_t> seen;   // the layer's own window (LayerTaps::window)
    WindowScores scores;
  };

  // Returns what each narrow tier leaves of keys that are rebuilt from latents: [G, T, D_k] each.
  [[nodiscard]] std::vector<torch::Tensor> LatentTiers(int64_t layer,
                                                       const Window& window,
                                                       const LayerBases& bases) const;
  [[nodiscard]] std::vector<TierTensors> TiersOf(int64_t layer,
                                                 const Window& window,
                                                 std::span<const torch::Tensor> latent_keys,
                                                 const LayerBases& bases,
                                                 int64_t kv_head) const;
  // Returns [context, tiers]: losses of dropping a token and of each narrow tier, summed over the
  // group's heads. `tiers` has the rows of the whole context for each tier.
  [[nodiscard]] std::vector<double> Losses(const Window& window,
                                           std::span<const std::vector<TierTensors>> tiers,
                                           int64_t first_head,
                                           const ScorerSpec& scorer) const;
  // Calls `work` for the index of every window, several at once on threads of their own.
  void OverWindows(const std::function<void(int64_t)>& work) const;
  // Returns l [context] of the group's tokens.
  [[nodiscard]] std::vector<double> GroupDropLosses(const Window& window, int64_t group) const;
  // Returns what maps are fitted to, as bytes, of each window of this rank: losses [groups,
  // context], double, then scores [scorers, groups, context], float.
  [[nodiscard]] std::vector<std::string> ScoredTokens() const;
  // Returns the map of one group and scorer; `windows` are the bytes of all.
  [[nodiscard]] LossMapPointsOfGroup FitMap(const std::vector<std::string>& windows,
                                            int64_t group,
                                            int64_t scorer) const;
  // Fits the maps of all groups and scorers to the windows and keeps them in the sums.
  void FitMaps(int64_t layer, int64_t num_windows);
  // Returns the maps of the layer that were kept.
  [[nodiscard]] LossMapsByScorer MapsOf(int64_t layer) const;
  // Returns the curves [scorer][heads of the layer][points] of one window, one after the other.
  [[nodiscard]] std::vector<double> Curves(int64_t layer,
                                           const Window& window,
                                           const LayerBases& bases) const;

  // Returns the group's choices at every point of its curve; `losses` are scaled to the scores.
  [[nodiscard]] std::vector<std::vector<uint8_t>> Choices(int64_t layer,
                                                          const LayerBases& bases,
                                                          int64_t group,
                                                          int64_t context,
                                                          std::span<const float> scores,
                                                          const LossMapView& map,
                                                          std::vector<double>& losses) const;
  // Returns the horizon's queries of a kv head over all tokens.
  [[nodiscard]] HeadWindow HorizonOf(const Window& window, int64_t kv_head) const;
  [[nodiscard]] TieredError ErrorOf(const Window& window,
                                    const std::vector<TierTensors>& tiers,
                                    int64_t kv_head) const;

  const ModelConfig& config_;
  const ProfileOptions& options_;
  ProfileSums& sums_;
  Ranks& ranks_;
  std::vector<Tier> tiers_;      // widest first; one: no curves
  std::vector<size_t> scorers_;  // indices of those with curves
  torch::Tensor grams_;          // [H, D_v, D_v] of the layer
  model::LayerWeights weights_;  // of the layer, as far as keys are rebuilt with them
  std::vector<Window> windows_;
};

// Tells whether a scorer's scores can be scaled to tiers.
[[nodiscard]] bool HasMixedCurve(const ScorerSpec& scorer);

}  // namespace kvc::profile
