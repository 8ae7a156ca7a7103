#pragma once
// How much attention's output moves when one token is left out: the formula behind `output-error`.

#include <cstdint>
#include <vector>

#include "core/base/view.h"

namespace kvc::scorers {

// Without token j the softmax of query i spreads over the others, and its output
// o_i = sum_j a_ij v_j moves by a_ij/(1-a_ij) (v_j - o_i). As the residual stream sees it, with
// M = W_O^T W_O of the query head [D, D]:
//
//   e_ij = (a_ij/(1-a_ij))^2 (v_j - o_i) M (v_j - o_i)^T
//        = (a_ij/(1-a_ij))^2 (v_j M v_j^T - 2 o_i M v_j^T + o_i M o_i^T)
//
// so all of e is products of whole matrices. For a token that takes most of a query's attention the
// sum over the others is at hand, o'_i = (o_i - a_ij v_j)/(1-a_ij), and
// e_ij = a_ij^2 (v_j - o'_i) M (v_j - o'_i)^T.
class OutputChange {
 public:
  // For up to `most_queries` queries at once over values [T, D].
  OutputChange(int64_t most_queries, ConstMatrixF values);

  // M of the query head whose queries come next.
  void SetGram(ConstMatrixF gram);
  // Where the attention a [count, T] of the next `count` queries goes; 0 where a query sees
  // nothing.
  [[nodiscard]] MatrixF attention(int64_t count) const { return attention_.RowRange(0, count); }
  // e [count, T] of the queries whose attention is there, which is used up. NaN and infinity stay
  // what they are.
  [[nodiscard]] ConstMatrixF Errors(int64_t count);

 private:
  // The token that takes most of a query's attention.
  struct Dominant {
    int64_t token = -1;  // none
    float attention = 0.0F;
  };

  Dominant TakeDominant(int64_t i) const;
  void Complete(int64_t i, const Dominant& dominant) const;
  void FinishRow(int64_t i, const Dominant& dominant) const;

  ConstMatrixF values_;
  ConstMatrixF gram_;
  std::vector<float> storage_;
  MatrixF attention_;        // [W, T], a; dominant tokens 0
  MatrixF cross_;            // [W, T], o M v^T, then e
  MatrixF projected_;        // [T, D], v M
  MatrixF output_;           // [W, D], o' times its weight, then o
  MatrixF output_m_;         // [W, D], o M
  MatrixF dominant_;         // [W, D], v_j - o' of the dominant token
  MatrixF dominant_m_;       // [W, D], that times M
  std::vector<float> norm_;  // [T], v M v^T
};

}  // namespace kvc::scorers
