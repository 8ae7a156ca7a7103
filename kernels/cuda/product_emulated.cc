#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/base/error.h"
#include "kernels/cuda/product_library.h"
#include "kernels/cuda/stream_emulated.h"
#include "kernels/emulator/checker.h"
#include "kernels/emulator/memory.h"
#include "linalg/products.h"

namespace kvc::cuda {
namespace {

// Weights are converted to float in blocks of this many.
constexpr int64_t kBlockWeights = int64_t{1} << 18;

void CheckRange(const ConstRows& rows, const char* what) {
  const int64_t elements = (rows.rows - 1) * rows.stride + rows.width;
  const auto bytes = static_cast<size_t>(elements * DTypeBytes(rows.dtype));
  KVC_CHECK(emulator::FindAllocation(rows.data, bytes) != nullptr, kInternal,
            "product: expected {} in one allocation of the device, got other memory", what);
}

// Rows first .. first + count - 1 as floats, without gaps.
MatrixF Floats(const ConstRows& rows, int64_t first, int64_t count, std::vector<float>& room) {
  room.resize(static_cast<size_t>(count * rows.width));
  const auto* bytes = static_cast<const std::byte*>(rows.data);
  const int64_t row_bytes = rows.stride * DTypeBytes(rows.dtype);
  for (int64_t r = 0; r < count; ++r) {
    ConvertToFloat(rows.dtype, bytes + (first + r) * row_bytes, rows.width,
                   room.data() + r * rows.width);
  }
  return {room.data(), count, rows.width};
}

void StartSums(const ManyRowProduct& product) {
  for (int64_t r = 0; r < product.y.rows; ++r) {
    float* y = static_cast<float*>(product.y.data) + r * product.y.stride;
    if (!product.add) std::fill_n(y, product.y.width, 0.0F);
    if (product.bias == nullptr) continue;
    for (int64_t o = 0; o < product.y.width; ++o) y[o] += product.bias[o];
  }
}

void Multiply(const ManyRowProduct& product) {
  std::vector<float> x_room;
  std::vector<float> w_room;
  const MatrixF x = Floats(product.x, 0, product.x.rows, x_room);
  StartSums(product);
  const int64_t block = std::max<int64_t>(1, kBlockWeights / product.w.width);
  for (int64_t o = 0; o < product.w.rows; o += block) {
    const int64_t count = std::min(block, product.w.rows - o);
    const MatrixF w = Floats(product.w, o, count, w_room);
    const MatrixF y(static_cast<float*>(product.y.data) + o, product.y.rows, count,
                    product.y.stride);
    linalg::GemmNT(1.0F, x, w, true, y);
  }
  for (int64_t r = 0; r < product.y.rows; ++r) {
    emulator::MarkWritten(static_cast<float*>(product.y.data) + r * product.y.stride,
                          static_cast<size_t>(product.y.width) * sizeof(float));
  }
}

// OpenBLAS on the thread that runs the stream.
class EmulatedLibrary final : public ManyRowLibrary {
 public:
  bool Run(const ManyRowProduct& product, StreamHandle stream) override {
    CheckRange(product.x, "x");
    CheckRange(product.w, "W");
    CheckRange(product.y, "y");
    EnqueueWork(stream, [product] { Multiply(product); });
    return true;
  }
};

}  // namespace

size_t ManyRowWorkspaceBytes() { return 0; }

std::unique_ptr<ManyRowLibrary> OpenManyRowLibrary(void* /*workspace*/) {
  return std::make_unique<EmulatedLibrary>();
}

}  // namespace kvc::cuda
