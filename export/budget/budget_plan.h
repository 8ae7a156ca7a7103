#pragma once
// From a budget to the rows of every cache group (DESIGN: "What a budget means").
//
// A budget is a number of bytes that a sequence of `reference_length` tokens may take, everything
// counted that the runtime allocates for it: keys, values, positions, scores, query rings and the
// empty rows of the recent block. A plan is the largest allocation of the method that stays within.
//
// How a method spreads rows over the groups of the model, p = sinks + window + margin being what
// every group needs anyway and b the mean of what is left (reference: docs/bibliography.md):
//   streaming, uniform   the same rows everywhere
//   ada, ada-model       likewise, but for each prompt one threshold for the scores of a layer
//                        [AdaKV] or of the whole model moves rows between groups
//   pyramid [PyramidKV]  linear over the layers, from 2b - b/20 at the first to b/20 at the last
//   headkv [HeadKV]      (b - b/beta) for all, the rest in proportion to head importance
//   lukv [LUKV]          greedy on the lower hulls of the heads' curves, cost in bytes
//   lukv-mixed           likewise, with curves in which tokens may be in tiers
//
// With tiers narrower than a row every method's rows are bytes, a row's at full width each, that
// the runtime spends on tiers.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/sizes.h"
#include "core/cache/cache_spec.h"
#include "core/cache/manifest.h"
#include "core/cache/profile_file.h"
#include "export/budget/budget_curves.h"

namespace kvc::budget {

// What competes for a budget: how rows are spread, what ranks tokens, and what of a token is kept.
struct Policy {
  Method method = Method::kUniform;
  ScorerSpec scorer;
  std::optional<CurveLoss> loss;  // lukv and lukv-mixed; none: see LossOf
  std::vector<Tier> tiers;        // widest first; none: see TiersOf
  TierBasis basis = TierBasis::kOffline;
  // Format of the recent rows. None: that of the widest tier in few bits, if one keeps all
  // dimensions, else the cache's.
  std::optional<RowFormat> recent_format = {};
};

struct PlanRequest {
  Budget budget;
  Policy policy;
  int64_t sinks = 4;
  std::optional<int64_t> window = {};  // newest tokens, never dropped; none: see WindowOf
  int64_t reference_length = 4096;
  // For sequences whose decoding appends (runtime::DecodePolicy): no margin and no query ring,
  // which only serve re-allocation.
  bool append = false;
  const ProfileData* profile = nullptr;  // needed by headkv, lukv and lukv-mixed
  // kOffline with tiers narrower than a row: the profile's, or the bundle's.
  std::shared_ptr<const std::vector<LayerBases>> bases;
};

// A profile's bases, for the `bases` of all plans that are made with it; null without any.
[[nodiscard]] std::shared_ptr<const std::vector<LayerBases>> SharedBases(
    const ProfileData* profile);

// The tiers of a request: the policy's; where it names none, with lukv-mixed those that the profile
// has curves of (0,1/8,1/4,1 where it has none), else 0,1.
[[nodiscard]] std::vector<Tier> TiersOf(const PlanRequest& request);

// The loss of a request: the policy's; where it names none, the output's error for lukv-mixed with
// tiers in few bits, else importance (docs/experiments/2026-11-rows-in-few-bits.md).
[[nodiscard]] CurveLoss LossOf(const PlanRequest& request);

// The newest tokens that a request never drops and keeps in the recent rows' format. Where it does
// not say: kWindow; but with tiers in few bits and a score by the prompt's queries kNarrowWindow,
// or where decoding appends kAppendWindow, as such tiers hold the newest tokens in fewer bytes, and
// the score tells which of them are needed (docs/experiments/2026-11-rows-in-few-bits.md).
inline constexpr int64_t kWindow = 32;
inline constexpr int64_t kNarrowWindow = 12;
inline constexpr int64_t kAppendWindow = 4;
[[nodiscard]] int64_t WindowOf(const PlanRequest& request);

struct BudgetPlan {
  CacheSpec spec;
  SolverRecord solver;  // zeros unless the method is lukv
  CacheBytes bytes;     // at the reference length
  int64_t reference_length = 0;
  std::vector<std::vector<int64_t>> rows;  // [L][n] at the reference length
  std::vector<std::string> warnings;       // what users should know, a sentence each
};

// `geometry`: of the model (onnx_export::MakeCacheGeometry) or of a bundle. Budgets are shares of
// what the original model would cache (OriginalBytesPerToken). Method full keeps everything and is
// never refused at 100 %, even where its format takes more bytes than the original's. Where the
// curves of lukv-mixed are of other tiers than the request's, heads share the budget by those, and
// a warning says so: the tiers of a token are chosen at run time, among the request's. Throws
// kUsage when the method needs a profile that is not there or has not the scorer's curves,
// kBadShape when the profile is of another model, kUnsupported (ada where a layer has one group;
// tiers with a method or scorer that has no losses), kBadInput for tiers that do not fit the
// widths, kInfeasible naming the smallest possible budget.
[[nodiscard]] BudgetPlan MakeBudgetPlan(const CacheGeometry& geometry, const PlanRequest& request);

// Returns the cache of a bundle at another budget, with the manifest's method, scorer, sinks,
// window, tiers and bases; at less than everything a full cache becomes kUniform. `text` is the
// budget as it was asked for. Throws kUsage for a method that needs a profile, and like
// MakeBudgetPlan.
[[nodiscard]] CacheSpec WithBudget(const Manifest& manifest,
                                   const Budget& budget,
                                   const std::string& text);

// Bytes that the budget allows for a sequence of `length` tokens.
[[nodiscard]] int64_t BudgetBytes(const CacheGeometry& geometry,
                                  const Budget& budget,
                                  int64_t length);

// Rows and bytes of every kv head [L][G]; what the heads of a group share is split evenly, the
// remainder going to its first heads.
struct HeadShare {
  int64_t tokens = 0;
  int64_t bytes = 0;
};
[[nodiscard]] std::vector<std::vector<HeadShare>> HeadShares(const BudgetPlan& plan);

}  // namespace kvc::budget
