#include <algorithm>

#include "core/base/error.h"
#include "kernels/cuda/scores.h"
#include "kernels/cuda/tier_losses.h"

namespace kvc::cuda {
namespace {

constexpr int32_t kMostSplits = 16;
constexpr int32_t kFewestSplitTokens = 1024;
constexpr int32_t kTileTokens = 64;

bool WantsErrors(const ScoreHead& head) {
  return head.error_sums != nullptr || head.error_maxima != nullptr ||
         head.prompt_errors != nullptr;
}

void CheckQueries(const char* what, const QueryRows& queries, const ScoreHead& head) {
  KVC_CHECK(queries.data != nullptr && queries.head_stride >= head.keys.width &&
                queries.first >= 0 && (queries.ring == 0 || queries.rows <= queries.ring),
            kBadShape, "scores: expected {} of width {}, got rows {} apart in a ring of {}", what,
            head.keys.width, queries.head_stride, queries.ring);
}

void CheckHead(const ScoreHead& head, bool errors) {
  KVC_CHECK(head.rows >= 0 && head.group >= 1 && head.keys.width >= 1 && head.window.rows >= 0 &&
                head.turn.count >= 0 && head.turn.skip >= 0,
            kBadShape, "scores: expected rows, query heads and a width, got {}, {} and {}",
            head.rows, head.group, head.keys.width);
  KVC_CHECK(head.group <= kMostScoreGroup, kUnsupported,
            "scores: expected at most {} query heads of a kv head, got {}", kMostScoreGroup,
            head.group);
  const int32_t width = errors ? std::max(head.keys.width, head.values.width) : head.keys.width;
  KVC_CHECK(width <= kMostScoreWidth, kUnsupported,
            "scores: expected a width of at most {}, got {}", kMostScoreWidth, width);
  if (head.window.rows > 0) CheckQueries("queries of the window", head.window, head);
  if (head.turn.count > 0) {
    CheckQueries("queries of the prompt", head.prompt, head);
    KVC_CHECK(head.turn.count <= head.prompt.rows - head.turn.skip, kBadShape,
              "scores: expected at most {} queries of the prompt, got {}",
              head.prompt.rows - head.turn.skip, head.turn.count);
    KVC_CHECK(head.turn.cos == nullptr || head.keys.width % 2 == 0, kBadShape,
              "scores: expected an even width to turn, got {}", head.keys.width);
  }
  const bool fits = !errors || (head.grams != nullptr && head.values.width >= 1);
  KVC_CHECK(fits, kBadShape, "scores: expected values and Gram matrices for errors, got none");
}

int64_t Padded(int64_t floats) { return (floats + 3) / 4 * 4; }

// Takes the head's parts of the scratch memory from `next` on.
void Divide(bool errors, int64_t& next, ScoreHead& head) {
  const auto take = [&next](int64_t floats) {
    const int64_t begin = next;
    next += Padded(floats);
    return begin;
  };
  const int64_t queries = head.queries;
  const int64_t width = errors ? head.values.width : 0;
  head.scratch.queries = take(queries * head.keys.width);
  head.scratch.partials = take(head.splits * queries * (4 + width));
  head.scratch.states = take(queries * 8);
  head.scratch.projected = take(queries * width);
  head.scratch.changed = take(queries * width);
  head.scratch.norms = take(errors ? int64_t{head.group} * head.rows : 0);
}

}  // namespace

ScorePlan PlanScores(std::vector<ScoreHead> heads, bool tiers) {
  ScorePlan plan;
  plan.errors = tiers || std::any_of(heads.begin(), heads.end(), WantsErrors);
  plan.width = 64;
  for (ScoreHead& head : heads) {
    CheckHead(head, plan.errors);
    head.window_count = std::min(head.rows, head.window.rows);
    head.queries = head.rows == 0 ? 0 : head.group * (head.window_count + head.turn.count);
    const int32_t parts = std::clamp(head.rows / kFewestSplitTokens, 1, kMostSplits);
    head.split_tokens =
        ((head.rows + parts - 1) / parts + kTileTokens - 1) / kTileTokens * kTileTokens;
    head.splits = head.rows == 0 ? 0 : (head.rows + head.split_tokens - 1) / head.split_tokens;
    Divide(plan.errors, plan.scratch_floats, head);
    plan.most_rows = std::max(plan.most_rows, head.rows);
    plan.most_queries = std::max(plan.most_queries, head.queries);
    plan.most_group = std::max(plan.most_group, head.group);
    plan.most_splits = std::max(plan.most_splits, head.splits);
    const int32_t width =
        plan.errors ? std::max(head.keys.width, head.values.width) : head.keys.width;
    if (width > 64) plan.width = kMostScoreWidth;
  }
  plan.heads = std::move(heads);
  return plan;
}

void CheckTiers(const ScorePlan& plan, const std::vector<ScoreTier>& tiers) {
  for (size_t i = 0; i < tiers.size(); ++i) {
    const ScoreTier& tier = tiers[i];
    const auto heads = static_cast<int32_t>(plan.heads.size());
    KVC_CHECK(tier.head >= 0 && tier.head < heads && tier.losses != nullptr, kBadShape,
              "tier losses: tier {}: expected one of {} heads and room for losses, got head {}", i,
              heads, tier.head);
    const ScoreHead& head = plan.heads[tier.head];
    const bool fits = (tier.keys.data == nullptr || tier.keys.width == head.keys.width) &&
                      (tier.values.data == nullptr || tier.values.width == head.values.width);
    KVC_CHECK(fits, kBadShape, "tier losses: tier {}: expected widths {} and {}, got {} and {}", i,
              head.keys.width, head.values.width, tier.keys.width, tier.values.width);
  }
}

}  // namespace kvc::cuda
