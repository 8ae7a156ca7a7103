#pragma once
// Products of any number of rows with a weight matrix: up to 8 rows by few_row_product.h, above
// that by a library (cuBLASLt on a device, OpenBLAS in the emulator).
//
// With more than 8 rows and weights of 16 bits, x is rounded to the weights' type first: that is
// what tensor cores multiply. Sums are in float. Where the library cannot read rows as they lie
// (odd widths on a device), products go through few_row_product.h in groups of 8, with x as it is.

#include <cstddef>
#include <memory>

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/rows.h"

namespace kvc::cuda {

// Bytes of device memory with which every product of up to `rows` rows of up to `in` elements runs.
[[nodiscard]] size_t ProductWorkspaceBytes(int64_t rows, int64_t in);

// The library, opened, with the memory that it works in. Used by one thread, and by one stream at a
// time: products of two streams would share the workspace.
class ProductLibrary {
 public:
  // `workspace` is memory of the device, 256-byte aligned, which must outlive the object and every
  // graph that captured a product. Throws kDevice where the library is not there, or too old.
  ProductLibrary(void* workspace, size_t bytes);
  ~ProductLibrary();
  ProductLibrary(ProductLibrary&&) = delete;

  // y = x W^T + bias, or y += x W^T + bias with `add`. x [T, in] and y [T, out] in f32; W [out, in]
  // in f32, f16 or bf16; bias [out] in f32, or null. Any widths and strides. Throws kBadShape,
  // kUnsupported, kDevice (a workspace that is too small). Nothing waits for the stream; products
  // may be captured.
  void Product(const ConstRows& x,
               const ConstRows& w,
               const float* bias,
               bool add,
               const Rows& y,
               StreamHandle stream);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc::cuda
