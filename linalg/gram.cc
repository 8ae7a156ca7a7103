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

HWY_BEFORE_NAMESPACE();
namespace kvc::linalg::detail::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using TagF = hn::ScalableTag<float>;
using VecF = hn::Vec<TagF>;

// The dot products of kTileRows rows with kTileCols others stay in registers: eight of the sixteen
// that most instruction sets have, enough to hide the latency of a multiplication.
constexpr int kTileRows = 4;
constexpr int kTileCols = 2;
constexpr int64_t kLine = 16;      // floats in a line of the cache
constexpr int64_t kTileLines = 4;  // copied for each tile

// Copies a slice into rows of kGramSlice floats, a few lines at a time between the products of the
// slice before, so that memory is read while the core multiplies. Zeros fill a row's last line.
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

// Keeps a vector that several products share in a register: GCC would load it again for each.
HWY_INLINE VecF InRegister(VecF v) {
#if HWY_ARCH_X86 && HWY_COMPILER_GCC_ACTUAL && HWY_TARGET != HWY_SCALAR
  asm("" : "+v"(v.raw));
#endif
  return v;
}

// out[r * stride + c] = a_r b_c^T over `count` columns, whole vectors; rows kGramSlice apart.
HWY_INLINE void MultiplyTile(
    const float* a, const float* b, int64_t count, float* out, int64_t stride) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF sums[kTileRows][kTileCols];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kTileCols; ++c) sums[r][c] = hn::Zero(tag);
  }
  for (int64_t k = 0; k < count; k += lanes) {
    const VecF b0 = hn::Load(tag, b + k);
    const VecF b1 = hn::Load(tag, b + kGramSlice + k);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const VecF a_r = InRegister(hn::Load(tag, a + r * kGramSlice + k));
      sums[r][0] = hn::MulAdd(a_r, b0, sums[r][0]);
      sums[r][1] = hn::MulAdd(a_r, b1, sums[r][1]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kTileCols; ++c) {
      out[r * stride + c] = hn::GetLane(hn::SumOfLanes(tag, sums[r][c]));
    }
  }
}

// The lower triangle of `rows` (a multiple of kTileRows) rows of kGramSlice floats, of which
// `count` columns are looked at; meanwhile `next` goes on.
void MultiplySlice(const float* slice, int64_t rows, int64_t count, SliceCopy& next, float* part) {
  for (int64_t r = 0; r < rows; r += kTileRows) {
    for (int64_t c = 0; c < r + kTileRows; c += kTileCols) {
      MultiplyTile(slice + r * kGramSlice, slice + c * kGramSlice, count, part + r * rows + c,
                   rows);
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
  // Rows that only fill a tile.
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
