#pragma once
// Sums over queries that scores of cached tokens are made of, for all kv heads of a layer: the
// twin of what scorers/snapkv.cc and scorers/output_error.cc do before they pool and scale
// (scorers/token_sums.h finishes both alike). With a_ij the attention of query i to token j, o_i
// the output of query i, and M_h = W_O^hT W_O^h of its query head h, the sums of
//
//   a_ij                                                  over the window's queries
//   e_ij = (a_ij / (1 - a_ij))^2 (v_j - o_i) M_h (v_j - o_i)^T    over the window's, the prompt's
//
// come in two passes. The first runs over the tokens for 64 queries at a time and finds o_i, the
// softmax' sum, and the token with the most attention, which stays out of the sums so that v_j -
// o_i keeps its digits where it is dominant (scorers/output_change.h). In the second a block owns
// 64 tokens and goes through all queries in order: no atomics, and the result depends on the table
// alone. Nothing waits for the stream. NaN and infinity reach the sums.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

constexpr int32_t kMostScoreWidth = 128;  // of keys and of values
constexpr int32_t kMostScoreGroup = 16;   // query heads of a kv head

// Queries of a group's heads as they enter the dot product. Query t of head h begins at
// data + ((first + t) % ring) * stride + h * head_stride; all counts are of floats and rows.
struct QueryRows {
  const float* data = nullptr;
  int64_t stride = 0;
  int32_t head_stride = 0;
  int32_t first = 0;
  int32_t ring = 0;  // 0: rows do not begin again
  int32_t rows = 0;
};

// Which queries of a prompt are expected again, and where. Query i of `count` is row
// skip + (rows - skip) * i / count. It is turned back from position first + row by `cos`, `sin`,
// then forward by row i of `to_cos`, `to_sin`: pairs (d, d + D_k / 2).
struct QueryTurn {
  const float* cos = nullptr;  // [positions, D_k / 2]; null: not turned back
  const float* sin = nullptr;
  const float* to_cos = nullptr;  // [count, D_k / 2]; null: not turned forward
  const float* to_sin = nullptr;
  int32_t first = 0;
  int32_t skip = 0;
  int32_t count = 0;
};

// Where a head's parts of the scratch memory begin, in floats, all multiples of 4.
struct ScoreScratch {
  int64_t queries = 0;    // [queries, D_k], as they enter the dot product
  int64_t partials = 0;   // [splits, queries, 4 + D], of the first pass
  int64_t states = 0;     // [queries, 8]
  int64_t projected = 0;  // o M [queries, D]
  int64_t changed = 0;    // of dominant tokens: v - o without them, times M [queries, D]
  int64_t norms = 0;      // v M_h v^T [group, rows]
};

// One kv head. Sums that are not wanted have null pointers.
struct ScoreHead {
  CachedRows keys;    // [rows, D_k]
  CachedRows values;  // [rows, D]; not read for `attention` alone
  int32_t rows = 0;   // T
  int32_t group = 0;  // query heads
  // The last min(rows, window.rows) of them count, at the last positions; causal among themselves.
  QueryRows window;
  QueryRows prompt;
  QueryTurn turn;                  // count = 0: no queries of the prompt; they see every token
  const float* grams = nullptr;    // M_h [group, D, D]; for errors
  float* attention = nullptr;      // [rows], sums of a over the window's queries
  float* error_sums = nullptr;     // [rows], of e likewise
  float* error_maxima = nullptr;   // [rows], the largest e likewise
  float* prompt_errors = nullptr;  // [rows], sums of e over the prompt's queries

  // Filled by PlanScores.
  int32_t window_count = 0;  // W
  int32_t queries = 0;       // of all heads: group * (W + count)
  int32_t splits = 0;        // parts of the tokens in the first pass
  int32_t split_tokens = 0;  // of a part, a multiple of 64
  ScoreScratch scratch;
};

struct ScorePlan {
  std::vector<ScoreHead> heads;  // to be copied to the device as they are
  int64_t scratch_floats = 0;
  int32_t most_rows = 0;
  int32_t most_queries = 0;
  int32_t most_splits = 0;
  int32_t most_group = 0;
  int32_t width = 0;    // 64 or 128: what the widest rows need
  bool errors = false;  // some head's are wanted
};

// Checks the heads and divides scratch memory. `tiers`: TierLosses (tier_losses.h) will follow,
// for which heads need their Gram matrices. Throws kBadShape where fields do not fit together,
// kUnsupported for rows wider than kMostScoreWidth and groups above kMostScoreGroup.
[[nodiscard]] ScorePlan PlanScores(std::vector<ScoreHead> heads, bool tiers = false);

// Writes the sums of all heads. `heads`: plan.heads on the device; scratch [plan.scratch_floats],
// 16-byte aligned; scale: of the logits. Rows may be 0.
void SumScores(const ScorePlan& plan,
               const ScoreHead* heads,
               float* scratch,
               float scale,
               StreamHandle stream);

}  // namespace kvc::cuda
