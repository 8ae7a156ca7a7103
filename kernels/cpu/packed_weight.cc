#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/error.h"
#include "kernels/cpu/block_product.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/scratch.h"
#include "kernels/matmul.h"

namespace kvc::kernels {
namespace {

// Up to this many rows of x the time goes into reading W; beyond, into multiplying.
constexpr int64_t kFewRows = 8;
// The columns of y that a part computes: its panels of W fill a third of the L2 cache.
constexpr int64_t kPartColumns = 96;
// The rows of x of a part, where W is too narrow for enough parts of columns.
constexpr int64_t kPartRows = 256;
constexpr int64_t kNarrow = 4 * kPartColumns;
// The bytes of W that a part reads when rows are few: much work beside the start of a part, and a
// small share of the whole.
constexpr int64_t kPartBytes = 64 << 10;
constexpr int64_t kPackGrain = 1 << 18;  // elements
constexpr int64_t kRoundRows = 32;

struct FreeArray {
  void operator()(uint16_t* data) const { ::operator delete (data, std::align_val_t{64}); }
};
using Array = std::unique_ptr<uint16_t, FreeArray>;

// Returns `source` as bf16, or null when that would change a number.
Array PackAsBF16(const float* source, int64_t count, ThreadPool& pool) {
  const auto bytes = static_cast<size_t>(count) * sizeof(uint16_t);
  Array packed(static_cast<uint16_t*>(::operator new (bytes, std::align_val_t{64})));
  std::atomic<bool> exact = true;
  pool.ParallelFor(count, kPackGrain, [&](int64_t begin, int64_t end) {
    if (exact.load(std::memory_order_relaxed) &&
        !NarrowToBF16(source + begin, end - begin, packed.get() + begin)) {
      exact = false;
    }
  });
  return exact ? std::move(packed) : nullptr;
}

void ApplyFew(
    const WeightView& weight, ConstMatrixF x, const float* bias, MatrixF y, ThreadPool& pool) {
  const int64_t row_bytes = std::max<int64_t>(1, weight.in * DTypeBytes(weight.dtype));
  const int64_t grain = std::max<int64_t>(8, kPartBytes / row_bytes / 8 * 8);
  const auto run = [&](int64_t begin, int64_t end) {
    MultiplyFewRows({weight, begin, end, bias}, x, y.ColRange(begin, end - begin));
  };
  pool.ParallelFor(weight.out, grain, std::ref(run));  // by reference: nothing is allocated
}

// The parts of y [T, out] of many rows: blocks of at most kPartColumns columns, and of at most
// `part_rows` rows where W is narrow.
struct Blocks {
  Blocks(int64_t y_rows, int64_t y_columns)
      : rows(y_rows),
        out(y_columns),
        part_rows(out <= kNarrow ? std::min(kPartRows, rows) : rows),
        columns((out + kPartColumns - 1) / kPartColumns) {}

  [[nodiscard]] int64_t count() const {
    return part_rows == 0 ? 0 : columns * ((rows + part_rows - 1) / part_rows);
  }

  int64_t rows, out, part_rows, columns;
};

struct Block {
  Block(const Blocks& of, int64_t index)
      : row(index / of.columns * of.part_rows),
        rows(std::min(of.part_rows, of.rows - row)),
        column(index % of.columns * kPartColumns),
        columns(std::min(kPartColumns, of.out - column)) {}

  int64_t row, rows, column, columns;
};

void ApplyPanels(
    const WeightView& weight, ConstMatrixF x, const float* bias, MatrixF y, ThreadPool& pool) {
  const Blocks blocks(x.rows, weight.out);
  pool.ParallelFor(blocks.count(), 1, [&](int64_t index, int64_t /*end*/) {
    const Block block(blocks, index);
    MultiplyManyRows({weight, block.column, block.column + block.columns, bias},
                     x.RowRange(block.row, block.rows),
                     y.RowRange(block.row, block.rows).ColRange(block.column, block.columns));
  });
}

// x as oneDNN reads it: without gaps between rows, as floats or rounded to bf16. What is copied
// lies in scratch memory of the calling thread.
const void* DenseRows(ConstMatrixF x, DType dtype, ThreadPool& pool) {
  if (dtype == DType::kF32 && x.stride == x.cols) return x.data;
  float* dense = Scratch(ScratchUse::kRounded, x.rows * x.cols);
  auto* rounded = reinterpret_cast<uint16_t*>(dense);
  pool.ParallelFor(x.rows, kRoundRows, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (dtype == DType::kF32) {
        std::copy_n(x.row(t), x.cols, dense + t * x.cols);
      } else {
        RoundToBF16(x.row(t), x.cols, rounded + t * x.cols);
      }
    }
  });
  return dense;
}

// Products by oneDNN for the blocks of one product; those at the edges have other sizes.
class LibraryProducts {
 public:
  LibraryProducts(const Blocks& blocks, int64_t in, DType dtype) {
    for (const int64_t index : {int64_t{0}, blocks.count() - 1}) {
      const Block block(blocks, index);
      rows_[index > 0] = block.rows;
      columns_[index > 0] = block.columns;
    }
    for (int r = 0; r < 2; ++r) {
      for (int c = 0; c < 2; ++c) {
        products_[r][c] = BlockProduct::Get({rows_[r], columns_[c], in}, dtype);
        complete_ = complete_ && products_[r][c] != nullptr;
      }
    }
  }

  [[nodiscard]] bool complete() const { return complete_; }
  [[nodiscard]] const BlockProduct& of(const Block& block) const {
    return *products_[block.rows != rows_[0]][block.columns != columns_[0]];
  }

 private:
  int64_t rows_[2] = {}, columns_[2] = {};  // of the first block and of the last one
  std::shared_ptr<const BlockProduct> products_[2][2];
  bool complete_ = true;
};

// y = x W^T + bias by oneDNN, x and W as `dtype`. Returns false, with y untouched, where it has no
// kernels for this processor.
bool ApplyByLibrary(const WeightView& weight,
                    DType dtype,
                    ConstMatrixF x,
                    const float* bias,
                    MatrixF y,
                    ThreadPool& pool) {
  const Blocks blocks(x.rows, weight.out);
  if (blocks.count() == 0 || weight.in == 0) return false;
  const LibraryProducts products(blocks, weight.in, dtype);
  if (!products.complete()) return false;
  const auto* dense = static_cast<const char*>(DenseRows(x, dtype, pool));
  const int64_t row_bytes = weight.in * DTypeBytes(dtype);
  pool.ParallelFor(blocks.count(), 1, [&](int64_t index, int64_t /*end*/) {
    const Block block(blocks, index);
    const void* w = static_cast<const char*>(weight.data) + block.column * row_bytes;
    if (weight.dtype != dtype) {  // shape: w [columns, in]
      float* wide = Scratch(ScratchUse::kWide, block.columns * weight.in);
      WidenRows(weight, block.column, block.column + block.columns, wide);
      w = wide;
    }
    const MatrixF out(Scratch(ScratchUse::kBlock, block.rows * block.columns), block.rows,
                      block.columns);
    products.of(block).Run(dense + block.row * row_bytes, w, out.data);
    for (int64_t r = 0; r < block.rows; ++r) {
      float* to = y.row(block.row + r) + block.column;
      if (bias == nullptr) {
        std::copy_n(out.row(r), block.columns, to);
        continue;
      }
      for (int64_t c = 0; c < block.columns; ++c) to[c] = out(r, c) + bias[block.column + c];
    }
  });
  return true;
}

}  // namespace

struct PackedWeight::Impl {
  WeightView view;  // what is multiplied: the caller's, or the packed one
  Array packed;     // [out, in] or null
  DType given = DType::kF32;
  bool by_library = true;
};

PackedWeight::PackedWeight(WeightView view, ThreadPool& pool, PackOptions options)
    : impl_(std::make_unique<Impl>()) {
  KVC_CHECK(view.dtype == DType::kF32 || view.dtype == DType::kF16 || view.dtype == DType::kBF16,
            kUnsupported,
            "weight matrix: expected F32, F16 or BF16, got {}; convert the checkpoint",
            SafetensorsName(view.dtype));
  KVC_CHECK(view.out >= 0 && view.in >= 0, kBadShape,
            "weight matrix: expected sizes >= 0, got [{}, {}]", view.out, view.in);
  impl_->view = view;
  impl_->given = view.dtype;
  impl_->by_library = options.by_library;
  if (options.lossless_bf16 && view.dtype == DType::kF32) {
    impl_->packed = PackAsBF16(static_cast<const float*>(view.data), view.out * view.in, pool);
    if (impl_->packed != nullptr) {
      impl_->view.data = impl_->packed.get();
      impl_->view.dtype = DType::kBF16;
    }
  }
}

PackedWeight::~PackedWeight() = default;
PackedWeight::PackedWeight(PackedWeight&&) noexcept = default;

int64_t PackedWeight::out() const { return impl_->view.out; }
int64_t PackedWeight::in() const { return impl_->view.in; }
int64_t PackedWeight::packed_bytes() const {
  return impl_->packed == nullptr ? 0 : out() * in() * DTypeBytes(DType::kBF16);
}

void PackedWeight::Apply(
    ConstMatrixF x, const float* bias, MatrixF y, ThreadPool& pool, InputRounding rounding) const {
  const WeightView& w = impl_->view;
  KVC_CHECK(x.cols == w.in && y.cols == w.out && x.rows == y.rows, kBadShape,
            "PackedWeight: expected x [T, {}] and y [T, {}], got x [{}, {}] and y [{}, {}]; check "
            "the model's sizes",
            w.in, w.out, x.rows, x.cols, y.rows, y.cols);
  if (x.rows <= kFewRows) return ApplyFew(w, x, bias, y, pool);
  const auto by_library = [&](DType dtype) {
    return impl_->by_library && ApplyByLibrary(w, dtype, x, bias, y, pool);
  };
  const bool rounds = impl_->given == DType::kBF16 && rounding == InputRounding::kToBF16;
  if (rounds && by_library(DType::kBF16)) return;
  if (!by_library(DType::kF32)) ApplyPanels(w, x, bias, y, pool);
}

}  // namespace kvc::kernels
