#include "kernels/cuda/product.h"

#include <algorithm>
#include <cstddef>

#include "core/base/error.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/few_row_product.h"
#include "kernels/cuda/product_library.h"

namespace kvc::cuda {
namespace {

// Rounded rows begin at multiples of 16 bytes.
int64_t RoundedStride(int64_t in) { return (in + 7) / 8 * 8; }

size_t RoundedBytes(int64_t rows, int64_t in) {
  const auto bytes = static_cast<size_t>(rows * RoundedStride(in)) * sizeof(uint16_t);
  return (bytes + 255) / 256 * 256;
}

void CheckShapes(const ConstRows& x, const ConstRows& w, const Rows& y) {
  KVC_CHECK(x.rows == y.rows && x.width == w.width && w.rows == y.width, kBadShape,
            "product: expected x [T, in], W [out, in] and y [T, out], got [{}, {}], [{}, {}] and "
            "[{}, {}]",
            x.rows, x.width, w.rows, w.width, y.rows, y.width);
  const bool weights = w.dtype == DType::kF32 || w.dtype == DType::kF16 || w.dtype == DType::kBF16;
  KVC_CHECK(x.dtype == DType::kF32 && y.dtype == DType::kF32 && weights, kUnsupported,
            "product: expected x and y in F32 and W in F32, F16 or BF16, got {}, {} and {}",
            SafetensorsName(x.dtype), SafetensorsName(y.dtype), SafetensorsName(w.dtype));
}

}  // namespace

size_t ProductWorkspaceBytes(int64_t rows, int64_t in) {
  return ManyRowWorkspaceBytes() + RoundedBytes(rows, in);
}

struct ProductLibrary::Impl {
  std::unique_ptr<ManyRowLibrary> library;
  std::byte* rounded = nullptr;
  size_t rounded_bytes = 0;

  // x, rounded to `dtype`.
  [[nodiscard]] ConstRows Round(const ConstRows& x, DType dtype, StreamHandle stream) const {
    if (x.dtype == dtype) return x;
    const size_t need = RoundedBytes(x.rows, x.width);
    KVC_CHECK(need <= rounded_bytes, kDevice,
              "product: expected {} bytes of workspace for rows, got {}", need, rounded_bytes);
    const Rows y = {rounded, dtype, x.rows, x.width, RoundedStride(x.width)};
    Copy(x, y, stream);
    return y;
  }
};

ProductLibrary::ProductLibrary(void* workspace, size_t bytes) : impl_(std::make_unique<Impl>()) {
  const size_t own = ManyRowWorkspaceBytes();
  KVC_CHECK(bytes >= own, kDevice, "product: expected {} bytes of workspace, got {}", own, bytes);
  impl_->library = OpenManyRowLibrary(workspace);
  impl_->rounded = static_cast<std::byte*>(workspace) + own;
  impl_->rounded_bytes = bytes - own;
}
ProductLibrary::~ProductLibrary() = default;

void ProductLibrary::Product(const ConstRows& x,
                             const ConstRows& w,
                             const float* bias,
                             bool add,
                             const Rows& y,
                             StreamHandle stream) {
  CheckShapes(x, w, y);
  if (y.rows == 0 || y.width == 0) return;
  if (x.rows > kMostProductRows && x.width > 0) {
    const ManyRowProduct product = {impl_->Round(x, w.dtype, stream), w, bias, add, y};
    if (impl_->library->Run(product, stream)) return;
  }
  for (int64_t row = 0; row < x.rows; row += kMostProductRows) {
    const int64_t rows = std::min(kMostProductRows, x.rows - row);
    const ConstRows x_part = {static_cast<const float*>(x.data) + row * x.stride, x.dtype, rows,
                              x.width, x.stride};
    const Rows y_part = {static_cast<float*>(y.data) + row * y.stride, y.dtype, rows, y.width,
                         y.stride};
    FewRowProduct(x_part, w, bias, add, y_part, stream);
  }
}

}  // namespace kvc::cuda
