#include "bench/device/row_pattern.h"

#include <algorithm>
#include <span>

namespace kvc::bench {
namespace {

// A prime, so that rows of different heads meet in no order.
constexpr int64_t kRows = 2039;

}  // namespace

RowPattern::RowPattern(const RowFormat& format, int64_t width, Rng& rng, cuda::StreamHandle stream)
    : format_(format),
      code_(format, width),
      width_(width),
      stride_(RowBytes(format, width, code_.steps())),
      decoded_(static_cast<size_t>(kRows * width)),
      encoded_(static_cast<size_t>(kRows * stride_)) {
  for (float& x : decoded_) x = static_cast<float>(rng.NextNormal());
  std::vector<std::byte> bytes(encoded_.bytes());
  EncodeRows({decoded_.data(), kRows, width}, format, bytes.data(), stride_, code_.steps());
  DecodeRows(bytes.data(), format, stride_, {decoded_.data(), kRows, width}, code_.steps());
  cuda::CopyToDevice(encoded_.data(), bytes.data(), bytes.size(), stream);
  const std::span<const float> steps = code_.all_steps();
  if (!steps.empty()) {
    steps_ = cuda::DeviceBuffer(steps.size_bytes());
    cuda::CopyToDevice(steps_.data(), steps.data(), steps.size_bytes(), stream);
  }
  cuda::Synchronize(stream);
}

cuda::CachedRows RowPattern::Fill(void* target,
                                  int64_t first,
                                  int64_t rows,
                                  cuda::StreamHandle stream) const {
  auto* to = static_cast<std::byte*>(target);
  const auto* from = static_cast<const std::byte*>(encoded_.data());
  for (int64_t done = 0; done < rows;) {
    const int64_t row = (first + done) % kRows;
    const int64_t count = std::min(kRows - row, rows - done);
    cuda::CopyOnDevice(to + done * stride_, from + row * stride_,
                       static_cast<size_t>(count * stride_), stream);
    done += count;
  }
  cuda::CachedRows filled = {target, cuda::RowCodeOf(format_), static_cast<int32_t>(width_),
                             stride_};
  if (NeedsSteps(format_)) {
    cuda::SetSteps(code_.steps(), static_cast<const float*>(steps_.data()), filled);
  }
  return cuda::CodedColumns(filled);
}

const float* RowPattern::Row(int64_t row) const { return decoded_.data() + row % kRows * width_; }

}  // namespace kvc::bench
