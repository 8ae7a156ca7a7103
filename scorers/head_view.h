#pragma once
// One query head's view of a cache group: attention, outputs, and how far each value lies from
// them. The losses of tiers start from it.

#include <cstdint>
#include <vector>

#include "core/base/view.h"
#include "scorers/scorer.h"

namespace kvc::scorers {

// A float matrix that owns its elements; they start as zero. Move-only, because `view` points into
// `data`.
struct FloatMatrix {
  std::vector<float> data;
  MatrixF view;

  FloatMatrix() = default;
  FloatMatrix(int64_t rows, int64_t cols)
      : data(static_cast<size_t>(rows * cols)), view(data.data(), rows, cols) {}
  FloatMatrix(const FloatMatrix&) = delete;
  FloatMatrix& operator=(const FloatMatrix&) = delete;
  FloatMatrix(FloatMatrix&&) = default;
  FloatMatrix& operator=(FloatMatrix&&) = default;
};

// The token that takes most of a query's attention (more than kDominantAttention). Its v - o comes
// by subtraction.
struct DominantToken {
  int64_t token = -1;         // -1: there is none
  double rest = 1.0;          // attention of all other tokens
  std::vector<float> change;  // [D], (v - o) / rest = v - (output of the other tokens)
};

// A query head's view of the tokens through the W queries of the window.
struct HeadView {
  FloatMatrix attention;                 // [W, T], a
  FloatMatrix output;                    // [W, D], o
  FloatMatrix squares;                   // [W, T], (v - o) M (v - o)^T, not for dominant tokens
  std::vector<DominantToken> dominants;  // [W]
};

// The view of the last `window` queries of query head `h`, which `head` must have. Checks nothing.
[[nodiscard]] HeadView ViewFromHead(const HeadInput& head, size_t h, int64_t window);

}  // namespace kvc::scorers
