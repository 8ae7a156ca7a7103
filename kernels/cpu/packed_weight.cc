#include <algorithm>
#include <vector>

#include "core/error.h"
#include "kernels/matmul.h"

namespace kvc::kernels {
namespace {

constexpr int64_t kColumnsPerPart = 96;  // of W^T: fixes the parts of a product

}  // namespace

struct PackedWeight::Impl {
  WeightView view;
};

PackedWeight::PackedWeight(WeightView view, ThreadPool& /*pool*/, bool /*lossless_bf16*/)
    : impl_(std::make_unique<Impl>()) {
  KVC_CHECK(view.dtype == DType::kF32 || view.dtype == DType::kF16 || view.dtype == DType::kBF16,
            kUnsupported,
            "weight matrix: expected F32, F16 or BF16, got ",
            SafetensorsName(view.dtype),
            "; convert the checkpoint");
  impl_->view = view;
}
PackedWeight::~PackedWeight() = default;
PackedWeight::PackedWeight(PackedWeight&&) noexcept = default;

int64_t PackedWeight::out() const { return impl_->view.out; }
int64_t PackedWeight::in() const { return impl_->view.in; }
int64_t PackedWeight::packed_bytes() const { return 0; }

void PackedWeight::Apply(ConstMatrixF x, const float* bias, MatrixF y, ThreadPool& pool) const {
  const WeightView& w = impl_->view;
  KVC_CHECK(x.cols == w.in && y.cols == w.out && x.rows == y.rows,
            kBadShape,
            "PackedWeight: expected x [T, ",
            w.in,
            "] and y [T, ",
            w.out,
            "], got x [",
            x.rows,
            ", ",
            x.cols,
            "] and y [",
            y.rows,
            ", ",
            y.cols,
            "]; check the model's sizes");
  pool.ParallelFor(w.out, kColumnsPerPart, [&](int64_t begin, int64_t end) {
    const int64_t columns = end - begin;
    const auto* bytes = static_cast<const char*>(w.data);
    ConstMatrixF tile(reinterpret_cast<const float*>(bytes) + begin * w.in, columns, w.in);
    std::vector<float> converted;
    if (w.dtype != DType::kF32) {
      converted.resize(static_cast<size_t>(columns * w.in));
      ConvertToFloat(
          w.dtype, bytes + begin * w.in * DTypeBytes(w.dtype), columns * w.in, converted.data());
      tile = ConstMatrixF(converted.data(), columns, w.in);
    }
    for (int64_t t = 0; t < y.rows; ++t) {
      for (int64_t c = begin; c < end; ++c) {
        y(t, c) = bias == nullptr ? 0.0F : bias[c];
      }
    }
    GemmNT(1.0F, x, tile, true, y.ColRange(begin, columns));
  });
}

}  // namespace kvc::kernels
