#include "linalg/gram.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <hwy/aligned_allocator.h>

#include "linalg/svd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "linalg/gram.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "linalg/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::linalg::detail::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using linalg::HWY_NAMESPACE::kTileVecs;
using linalg::HWY_NAMESPACE::MultiplyRowTile;

// The dot products of kTileRows rows with two others take eight of the sixteen registers that most
// instruction sets have, enough to hide the latency of a multiplication.
constexpr int kTileRows = 4;
constexpr int64_t kLine = 16;      // floats in a line of the cache
constexpr int64_t kTileLines = 4;  // cache lines that are copied during each tile

// Copies a slice into rows of kGramSlice floats, a few cache lines at a time between the products
// of the slice before it, so that memory is read while the core multiplies. Zeros fill the last
// line of a row.
class SliceCopy {
 public:
  SliceCopy(ConstMatrixF slice, float* target) : slice_(slice), target_(target) {}

  [[nodiscard]] bool done() const { return row_ == slice_.rows; }

  HWY_INLINE void Step() {
    for (int64_t i = 0; i < kTileLines && !done(); ++i) {
      const float* from = slice_.row(row_) + col_;
      float* to = target_ + row_ * kGramSlice + col_;
      const int64_t count = std::min(kLine, slice_.cols - col_);
      if (count == kLine) {
        std::copy_n(from, kLine, to);
      } else {
        std::fill(std::copy_n(from, count, to), to + kLine, 0.0F);
      }
      col_ += kLine;
      if (col_ < slice_.cols) continue;
      col_ = 0;
      ++row_;
    }
  }

 private:
  ConstMatrixF slice_;
  float* target_;
  int64_t row_ = 0;
  int64_t col_ = 0;
};

// Writes the lower triangle of a slice's Gram matrix to part [rows, rows], and goes on with the
// copy of the next slice meanwhile. slice [rows, kGramSlice], rows a multiple of kTileRows; only
// its first `count` columns are read.
void MultiplySlice(const float* slice, int64_t rows, int64_t count, SliceCopy& next, float* part) {
  for (int64_t r = 0; r < rows; r += kTileRows) {
    for (int64_t c = 0; c < r + kTileRows; c += kTileVecs) {
      MultiplyRowTile<kTileRows>(slice + r * kGramSlice, slice + c * kGramSlice, kGramSlice, count,
                                 part + r * rows + c, rows);
      next.Step();
    }
  }
  while (!next.done()) next.Step();
}

void LowerGram(ConstMatrixF a, MatrixD gram) {
  const int64_t rows = (a.rows + kTileRows - 1) / kTileRows * kTileRows;
  const auto slice = [&](int64_t begin) {
    return a.ColRange(std::min(begin, a.cols), std::clamp<int64_t>(a.cols - begin, 0, kGramSlice));
  };
  auto now = hwy::AllocateAligned<float>(rows * kGramSlice);
  auto next = hwy::AllocateAligned<float>(rows * kGramSlice);
  auto part = hwy::AllocateAligned<float>(rows * rows);
  // Zero rows fill the last tile.
  for (const auto& buffer : {now.get(), next.get()}) {
    std::fill(buffer + a.rows * kGramSlice, buffer + rows * kGramSlice, 0.0F);
  }
  SliceCopy first(slice(0), now.get());
  while (!first.done()) first.Step();
  for (int64_t begin = 0; begin < a.cols; begin += kGramSlice) {
    const ConstMatrixF coming = slice(begin + kGramSlice);
    SliceCopy copy(coming.cols > 0 ? coming : coming.RowRange(0, 0), next.get());
    const int64_t count = (slice(begin).cols + kLine - 1) / kLine * kLine;
    MultiplySlice(now.get(), rows, count, copy, part.get());
    for (int64_t r = 0; r < a.rows; ++r) {
      for (int64_t c = 0; c <= r; ++c) gram(r, c) += part[r * rows + c];
    }
    std::swap(now, next);
  }
}

}  // namespace kvc::linalg::detail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::linalg::detail {

HWY_EXPORT(LowerGram);

Matrix GramOf(ConstMatrixF a) {
  Matrix gram(a.rows, a.rows);
  HWY_DYNAMIC_DISPATCH(LowerGram)(a, gram.view());
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < r; ++c) gram(c, r) = gram(r, c);
  }
  return gram;
}

}  // namespace kvc::linalg::detail
#endif  // HWY_ONCE
