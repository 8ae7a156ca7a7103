#pragma once
// The change of the attention output when one token is left out, the formula of `output-error`.

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
// so that all of e comes from products of whole matrices. For a token that takes most of a query's
// attention the sum over the others is at hand, o'_i = (o_i - a_ij v_j)/(1-a_ij), and
// e_ij = a_ij^2 (v_j - o'_i) M (v_j - o'_i)^T. One object serves one thread.
class OutputChange {
 public:
  // Prepares for up to `most_queries` queries at once over values [T, D], which it borrows.
  OutputChange(int64_t most_queries, ConstMatrixF values);

  // Sets M of the query head whose queries come next. Borrows it.
  void SetGram(ConstMatrixF gram);
  // The matrix to which the caller writes the attention a [count, T] of the next `count` queries; 0
  // where a query sees nothing.
  [[nodiscard]] MatrixF attention(int64_t count) const { return attention_.RowRange(0, count); }
  // Returns e [count, T] of the queries whose attention was written. Overwrites the attention. NaN
  // and infinity stay what they are. Valid until the next call.
  [[nodiscard]] ConstMatrixF Errors(int64_t count);

 private:
  // The token that takes most of a query's attention.
  struct Dominant {
    int64_t token = -1;  // none
    float attention = 0.0F;
  };

  [[nodiscard]] Dominant TakeDominant(int64_t i) const;
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
