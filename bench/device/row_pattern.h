#pragma once
// Rows of random numbers on a device that are cheap to make in any number: a few thousand different
// ones, repeated.

#include <cstdint>
#include <vector>

#include "bench/support/attention_shape.h"
#include "core/base/rng.h"
#include "core/base/row_format.h"
#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/runtime.h"

namespace kvc::bench {

class RowPattern {
 public:
  // Rows `width` wide in a format, as numbers of about 1; codes with steps reach that far.
  RowPattern(const RowFormat& format, int64_t width, Rng& rng, cuda::StreamHandle stream);

  [[nodiscard]] int64_t width() const { return width_; }
  [[nodiscard]] int64_t row_bytes() const { return stride_; }
  // Puts rows first .. first + rows - 1 of the repeated pattern into memory of the device, one
  // behind the other, and returns them.
  cuda::CachedRows Fill(void* target, int64_t first, int64_t rows, cuda::StreamHandle stream) const;
  // Row `row` of the repeated pattern [width], as its format holds it.
  [[nodiscard]] const float* Row(int64_t row) const;

 private:
  RowFormat format_;
  CheapCode code_;
  int64_t width_;
  int64_t stride_;
  std::vector<float> decoded_;  // [rows of the pattern, width]
  cuda::DeviceBuffer encoded_;
  cuda::DeviceBuffer steps_;  // of formats that have some
};

}  // namespace kvc::bench
