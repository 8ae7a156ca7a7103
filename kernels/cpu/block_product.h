#pragma once
// Products of many rows on one thread by oneDNN, for the processors that it has kernels of its own
// for: y = x W^T with x and W as floats (AVX-512) or as bf16 with float sums (AVX512-BF16, AMX).
// Internal to kernels/cpu.
//
// An element of y depends on its row of x and its row of W alone, not on how many others are
// computed beside it.

#include <compare>
#include <cstdint>
#include <memory>

#include "core/base/dtype.h"

namespace kvc::kernels {

struct BlockShape {
  int64_t rows = 0;  // of x
  int64_t out = 0;
  int64_t in = 0;

  auto operator<=>(const BlockShape&) const = default;
};

// A product of fixed sizes. Immutable; threads may share one.
class BlockProduct {
 public:
  // Returns the product for x and W of type `dtype`, kF32 or kBF16, from a table of the last few
  // hundred. Returns null where oneDNN is not built in or would run general code: the caller then
  // has the faster one. Safe for several threads.
  static std::shared_ptr<const BlockProduct> Get(const BlockShape& shape, DType dtype);
  virtual ~BlockProduct() = default;

  // y [rows, out] = x [rows, in] W^T, W [out, in]; all row-major without gaps. Runs on the calling
  // thread.
  virtual void Run(const void* x, const void* weight, float* y) const = 0;
};

}  // namespace kvc::kernels
