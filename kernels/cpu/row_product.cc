#include "kernels/row_product.h"

#include <algorithm>

#include "kernels/cpu/block_product.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/scratch.h"
#include "linalg/products.h"

namespace kvc::kernels {
namespace {

// A product of one block: so few sizes that prompts of any length share them.
constexpr int64_t kBlockRows = 192;
constexpr int64_t kBlockOut = 256;
constexpr int64_t kBlockIn = 512;
constexpr int64_t kStepRows = 16;
constexpr int64_t kStepOut = 32;
constexpr int64_t kStepIn = 64;
// Fewer multiplications than these are over before rows are rounded.
constexpr int64_t kFewestProducts = int64_t{1} << 14;

int64_t Padded(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

// A block of x as bf16 [rows, cols], zeros behind its edges.
const uint16_t* RoundBlock(ScratchUse use, ConstMatrixF x, int64_t rows, int64_t cols) {
  auto* target = reinterpret_cast<uint16_t*>(Scratch(use, rows * cols / 2));
  for (int64_t r = 0; r < x.rows; ++r) {
    RoundToBF16(x.row(r), x.cols, target + r * cols);
    std::fill(target + r * cols + x.cols, target + (r + 1) * cols, uint16_t{0});
  }
  std::fill(target + x.rows * cols, target + rows * cols, uint16_t{0});
  return target;
}

void TakeBlock(const float* block, int64_t stride, bool add, MatrixF y) {
  for (int64_t r = 0; r < y.rows; ++r) {
    const float* source = block + r * stride;
    float* target = y.row(r);
    if (!add) {
      std::copy_n(source, y.cols, target);
      continue;
    }
    for (int64_t c = 0; c < y.cols; ++c) target[c] += source[c];
  }
}

// y = x w^T, or y += x w^T, for up to kBlockOut rows of w and kBlockIn columns. Returns false, with
// y untouched, where there is no such product.
bool MultiplyBlocks(ConstMatrixF x, ConstMatrixF w, bool add, MatrixF y) {
  const int64_t in = Padded(x.cols, kStepIn);
  const int64_t out = Padded(w.rows, kStepOut);
  const uint16_t* rounded_w = nullptr;
  for (int64_t first = 0; first < x.rows; first += kBlockRows) {
    const int64_t count = std::min(kBlockRows, x.rows - first);
    const int64_t rows = Padded(count, kStepRows);
    const auto product = BlockProduct::Get({rows, out, in}, DType::kBF16);
    if (product == nullptr) return false;
    if (rounded_w == nullptr) rounded_w = RoundBlock(ScratchUse::kWide, w, out, in);
    const uint16_t* rounded_x =
        RoundBlock(ScratchUse::kRounded, x.RowRange(first, count), rows, in);
    float* block = Scratch(ScratchUse::kBlock, rows * out);
    product->Run(rounded_x, rounded_w, block);
    TakeBlock(block, out, add, y.RowRange(first, count));
  }
  return true;
}

bool MultiplyRounded(ConstMatrixF x, ConstMatrixF w, MatrixF y) {
  for (int64_t first = 0; first < w.rows; first += kBlockOut) {
    const int64_t count = std::min(kBlockOut, w.rows - first);
    for (int64_t k = 0; k < x.cols; k += kBlockIn) {
      const int64_t depth = std::min(kBlockIn, x.cols - k);
      if (!MultiplyBlocks(x.ColRange(k, depth), w.RowRange(first, count).ColRange(k, depth), k > 0,
                          y.ColRange(first, count))) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

void MultiplyRows(ConstMatrixF x, ConstMatrixF w, InputRounding rounding, MatrixF y) {
  const bool fits = x.cols == w.cols && y.rows == x.rows && y.cols == w.rows;
  if (fits && rounding == InputRounding::kToBF16 && x.rows * w.rows * x.cols >= kFewestProducts &&
      MultiplyRounded(x, w, y)) {
    return;
  }
  linalg::GemmNT(1.0F, x, w, false, y);
}

void RoundRows(InputRounding rounding, MatrixF x) {
  if (rounding == InputRounding::kNone) return;
  for (int64_t r = 0; r < x.rows; ++r) RoundToBF16(x.row(r), x.cols);
}

}  // namespace kvc::kernels
