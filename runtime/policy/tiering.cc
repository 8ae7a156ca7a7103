#include "runtime/policy/tiering.h"

#include <algorithm>

#include "runtime/cache/kv_layout.h"
#include "scorers/tier_loss.h"
#include "solver/tier_choice.h"

namespace kvc::runtime {
namespace {

// A token that competes: its place, and the tier whose widths and formats it has, which is 0 for
// rows of the working block.
struct Candidate {
  RowSource source;
  int64_t tier = 0;
};

// Returns true if a row of `from` holds everything that `to` keeps.
bool Covers(const BlockShape& from, const BlockShape& to) {
  return from.key_width >= to.key_width && from.value_width >= to.value_width &&
         MeanBits(from.key_format) >= MeanBits(to.key_format) &&
         MeanBits(from.value_format) >= MeanBits(to.value_format);
}

// Leaves the rows `chosen` (ascending) of scores and losses.
void Pick(std::span<const int64_t> chosen, const CacheSpec& spec, GroupScores& scores) {
  const int64_t columns = std::ssize(spec.tiers);
  for (size_t i = 0; i < chosen.size(); ++i) {
    scores.scores[i] = scores.scores[chosen[i]];
    std::copy_n(scores.losses.begin() + chosen[i] * columns, columns,
                scores.losses.begin() + static_cast<int64_t>(i) * columns);
  }
}

// Returns the tiers of the candidates by least loss within the bytes of `tier_rows` rows of full
// width.
std::vector<TierMoves> Distribute(const CacheSpec& spec,
                                  int64_t layer,
                                  int64_t n,
                                  std::span<const Candidate> candidates,
                                  GroupScores& scores,
                                  int64_t tier_rows) {
  const int64_t tiers = std::ssize(spec.tiers);
  const bool leaves = spec.AttentionWindow(layer) > 0;
  std::vector<BlockShape> shapes;
  std::vector<int64_t> bytes;
  for (int64_t t = 0; t < tiers; ++t) {
    shapes.push_back(ShapeOf(spec, layer, n, t));
    bytes.push_back(shapes.back().BytesPerRow() + (leaves ? kPositionBytes : 0));
  }
  std::vector<uint8_t> reaches;  // [tiers, tiers]
  for (const BlockShape& from : shapes) {
    for (const BlockShape& to : shapes) reaches.push_back(Covers(from, to) ? 1 : 0);
  }
  const MatrixD losses(scores.losses.data(), std::ssize(candidates), tiers);
  scorers::ScaleToScores(std::span(scores.scores).first(candidates.size()),
                         LossMapOf(spec, layer, n), losses);
  std::vector<int64_t> now;
  for (const Candidate& candidate : candidates) now.push_back(candidate.tier);
  const solver::TierChoice rule({losses, bytes, now, reaches});
  const std::vector<uint8_t> choice = rule.Within(tier_rows * bytes[0]);
  std::vector<TierMoves> moves(static_cast<size_t>(tiers));
  for (size_t j = 0; j < candidates.size(); ++j) {
    if (choice[j] == 0) continue;
    TierMoves& tier = moves[choice[j] - 1];
    tier.rows.push_back(candidates[j].source);
    tier.scores.push_back(scores.scores[j]);
    ++tier.capacity;
  }
  return moves;
}

}  // namespace

RowMoves DecidePromptTiers(const CacheSpec& spec,
                           int64_t layer,
                           int64_t n,
                           PromptRows rows,
                           GroupScores& scores,
                           int64_t tier_rows) {
  RowMoves moves;
  moves.leave_recent = rows.count - RecentAfterPrompt(spec, rows.count);
  moves.recent_capacity = spec.window + spec.margin;
  std::vector<Candidate> candidates;
  std::vector<int64_t> chosen;
  for (int64_t row = rows.first; row < moves.leave_recent; ++row) {
    candidates.push_back({{kRecentBlock, row}, 0});
    chosen.push_back(row);
  }
  if (rows.first > 0) Pick(chosen, spec, scores);
  moves.tiers = Distribute(spec, layer, n, candidates, scores, tier_rows);
  return moves;
}

RowMoves DecideTiers(const CacheSpec& spec,
                     int64_t layer,
                     int64_t n,
                     const HeldRows& group,
                     GroupScores& scores,
                     int64_t moving,
                     int64_t seen,
                     int64_t tier_rows) {
  RowMoves moves;
  moves.leave_recent = moving;
  const int64_t recent_tier = RecentTier(spec);
  std::vector<Candidate> candidates;
  std::vector<int64_t> chosen;  // of the scores
  int64_t next = 0;
  for (int64_t t = 0; t < std::ssize(group.tier_scores); ++t) {
    for (int64_t row = 0; row < std::ssize(group.tier_scores[t]); ++row, ++next) {
      if (!group.tier_positions.empty() && group.tier_positions[t][row] < seen) continue;
      candidates.push_back({{t, row}, t});
      chosen.push_back(next);
    }
  }
  for (int64_t row = 0; row < moving; ++row, ++next) {
    candidates.push_back({{kRecentBlock, row}, recent_tier});
    chosen.push_back(next);
  }
  if (std::ssize(chosen) < next) Pick(chosen, spec, scores);
  moves.tiers = Distribute(spec, layer, n, candidates, scores, tier_rows);
  return moves;
}

}  // namespace kvc::runtime
