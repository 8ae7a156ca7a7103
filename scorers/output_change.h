#pragma once
// The change of the attention output when one token is left out, the formula of `output-error`, and
// what the losses of tiers need to know of the same queries.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/view.h"
#include "kernels/output_rows.h"
#include "kernels/rounding.h"
#include "scorers/float_matrix.h"

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
  // The token that takes more than half of a query's attention.
  struct Dominant {
    int64_t token = -1;      // none
    float attention = 0.0F;  // a
    double rest = 1.0;       // attention of all other tokens
    float square = 0.0F;     // (v - o') M (v - o')^T
  };

  // Prepares for up to `most_queries` queries at once over values [T, D], which it borrows.
  OutputChange(int64_t most_queries, ConstMatrixF values, kernels::InputRounding rounding);

  // Sets M of the query head whose queries come next. Borrows it; it must be symmetric.
  void SetGram(ConstMatrixF gram);
  // The matrix to which the caller writes the attention a [count, T] of the next `count` queries; 0
  // where a query sees nothing. Find sets it to 0 for dominant tokens.
  [[nodiscard]] MatrixF attention(int64_t count) const {
    return attention_.view.RowRange(0, count);
  }
  // Finds what the queries whose attention was written make of the tokens. What is returned by the
  // functions below is valid until the next call.
  void Find(int64_t count);

  // Turns errors [T] into sum or maximum of themselves and e [count, T]. NaN and infinity stay.
  void Reduce(kernels::LossReduction reduction, std::span<float> errors) const;
  // (v - o) M (v - o)^T [count, T], unspecified for dominant tokens. Reduce must not follow.
  [[nodiscard]] ConstMatrixF Squares();
  [[nodiscard]] std::span<const Dominant> dominants() const { return dominants_; }
  // o [count, D], rounded as products need it, and v - o' [count, D] of dominant tokens.
  [[nodiscard]] ConstMatrixF outputs() const { return Rows(output_); }
  [[nodiscard]] ConstMatrixF dominant_changes() const { return Rows(dominant_); }

 private:
  [[nodiscard]] MatrixF Rows(const FloatMatrix& matrix) const {
    return matrix.view.RowRange(0, std::ssize(dominants_));
  }
  [[nodiscard]] Dominant TakeDominant(int64_t i) const;
  void Complete(int64_t i, Dominant& dominant) const;

  ConstMatrixF values_;
  ConstMatrixF gram_;
  kernels::InputRounding rounding_;
  FloatMatrix transposed_;   // [D, T], v^T
  FloatMatrix projected_;    // [T, D], v M
  FloatMatrix attention_;    // [W, T], a; dominant tokens 0
  FloatMatrix cross_;        // [W, T], o M v^T
  FloatMatrix output_;       // [W, D], o' times its weight, then o
  FloatMatrix output_m_;     // [W, D], o M
  FloatMatrix dominant_;     // [W, D], v_j - o' of the dominant token
  FloatMatrix dominant_m_;   // [W, D], that times M
  std::vector<float> norm_;  // [T], v M v^T
  std::vector<float> own_;   // [W], o M o^T
  std::vector<Dominant> dominants_;
};

}  // namespace kvc::scorers
