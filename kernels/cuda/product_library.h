#pragma once
// The library that a build's ProductLibrary (product.h) calls for more rows than a few: cuBLASLt
// (product_nvcc.cc) or OpenBLAS (product_emulated.cc).

#include <cstddef>
#include <memory>

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/rows.h"

namespace kvc::cuda {

// y = x W^T + bias, or y += ...; see product.h. Shapes agree, none is 0, x and w have one dtype.
struct ManyRowProduct {
  ConstRows x, w;
  const float* bias = nullptr;
  bool add = false;
  Rows y;
};

class ManyRowLibrary {
 public:
  ManyRowLibrary() = default;
  virtual ~ManyRowLibrary() = default;
  ManyRowLibrary(ManyRowLibrary&&) = delete;
  // False where the library cannot multiply rows of these widths at these addresses; nothing has
  // been put into the stream then.
  [[nodiscard]] virtual bool Run(const ManyRowProduct& product, StreamHandle stream) = 0;
};

// Bytes of the library's own workspace, a multiple of 256.
[[nodiscard]] size_t ManyRowWorkspaceBytes();
// `workspace` has these bytes. Throws kDevice.
[[nodiscard]] std::unique_ptr<ManyRowLibrary> OpenManyRowLibrary(void* workspace);

}  // namespace kvc::cuda
