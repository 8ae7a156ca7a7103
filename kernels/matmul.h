#pragma once
// Products of activations with a weight matrix, y = x W^T (+ bias), on the CPU.
//
// Few rows (decode) are bound by reading W once, which a SIMD kernel does in its stored type. Many
// rows (prefill) are bound by multiplying, which oneDNN does block by block where it has kernels
// for the processor (AVX-512 and later): in bf16 where W is stored so, with x rounded to bf16 once
// and sums in floats. Elsewhere W is packed into panels for the tile of linalg/product-inl.h.
//
// The parts are fixed by the sizes, so that the result does not depend on the number of threads; it
// depends on the instruction set. A row of y depends on its row of x alone among up to 8 rows, and
// among more than 8, but not across that bound: rows that are rounded differ from rows that are not
// by up to 2^-9 of each product.

#include <cstdint>
#include <memory>

#include "core/base/dtype.h"
#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "kernels/rounding.h"

namespace kvc::kernels {

// A weight matrix [out, in], row-major, borrowed from a mapped file (float, f16 or bf16).
struct WeightView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t out = 0;
  int64_t in = 0;
};

struct PackOptions {
  bool lossless_bf16 = true;  // store a float matrix as bf16 where that changes no number
  bool by_library = true;     // false: multiply many rows without oneDNN
};

// A weight that is prepared for both uses. When every element of a float matrix is exactly a bf16
// number (checkpoints trained in bf16), it is also packed as bf16, which halves what a decode step
// reads and changes no bit of the weights; x is not rounded for such a matrix.
class PackedWeight {
 public:
  // `view` must outlive the object.
  PackedWeight(WeightView view, ThreadPool& pool, PackOptions options = {});
  ~PackedWeight();
  PackedWeight(PackedWeight&&) noexcept;

  [[nodiscard]] int64_t out() const;
  [[nodiscard]] int64_t in() const;
  // The bytes that are allocated in addition to the view.
  [[nodiscard]] int64_t packed_bytes() const;
  // y [T, out] = x [T, in] W^T + bias; bias [out] or null. Rows may be strided. Throws kBadShape.
  void Apply(ConstMatrixF x,
             const float* bias,
             MatrixF y,
             ThreadPool& pool,
             InputRounding rounding = InputRounding::kToBF16) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc::kernels
