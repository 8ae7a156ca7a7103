#include <algorithm>
#include <atomic>
#include <functional>
#include <vector>

#include "core/base/error.h"
#include "kernels/cpu/product.h"
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

void ApplyMany(
    const WeightView& weight, ConstMatrixF x, const float* bias, MatrixF y, ThreadPool& pool) {
  const int64_t column_parts = (weight.out + kPartColumns - 1) / kPartColumns;
  const int64_t part_rows = weight.out <= kNarrow ? kPartRows : std::max<int64_t>(1, x.rows);
  const int64_t row_parts = (x.rows + part_rows - 1) / part_rows;
  pool.ParallelFor(column_parts * row_parts, 1, [&](int64_t part, int64_t /*end*/) {
    const int64_t begin = part % column_parts * kPartColumns;
    const int64_t end = std::min(weight.out, begin + kPartColumns);
    const int64_t row = part / column_parts * part_rows;
    const int64_t rows = std::min(part_rows, x.rows - row);
    MultiplyManyRows({weight, begin, end, bias}, x.RowRange(row, rows),
                     y.RowRange(row, rows).ColRange(begin, end - begin));
  });
}

}  // namespace

struct PackedWeight::Impl {
  WeightView view;  // what is multiplied: the caller's, or the packed one
  Array packed;     // [out, in] or null
};

PackedWeight::PackedWeight(WeightView view, ThreadPool& pool, bool lossless_bf16)
    : impl_(std::make_unique<Impl>()) {
  KVC_CHECK(view.dtype == DType::kF32 || view.dtype == DType::kF16 || view.dtype == DType::kBF16,
            kUnsupported,
            "weight matrix: expected F32, F16 or BF16, got {}; convert the checkpoint",
            SafetensorsName(view.dtype));
  KVC_CHECK(view.out >= 0 && view.in >= 0, kBadShape,
            "weight matrix: expected sizes >= 0, got [{}, {}]", view.out, view.in);
  impl_->view = view;
  if (lossless_bf16 && view.dtype == DType::kF32) {
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

void PackedWeight::Apply(ConstMatrixF x, const float* bias, MatrixF y, ThreadPool& pool) const {
  const WeightView& w = impl_->view;
  KVC_CHECK(x.cols == w.in && y.cols == w.out && x.rows == y.rows, kBadShape,
            "PackedWeight: expected x [T, {}] and y [T, {}], got x [{}, {}] and y [{}, {}]; check "
            "the model's sizes",
            w.in, w.out, x.rows, x.cols, y.rows, y.cols);
  if (x.rows <= kFewRows) {
    ApplyFew(w, x, bias, y, pool);
  } else {
    ApplyMany(w, x, bias, y, pool);
  }
}

}  // namespace kvc::kernels
