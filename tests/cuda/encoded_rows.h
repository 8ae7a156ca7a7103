#pragma once
// Random rows of a cache on the device, in a row format, with the values that they decode to.

#include <cmath>
#include <cstddef>
#include <vector>

#include "core/base/rng.h"
#include "core/base/row_format.h"
#include "kernels/cuda/cached_rows.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/test_steps.h"

namespace kvc::cuda {

// Room for `room` rows, of which the first `written` are there; the rest is what nobody has
// written. `offset` and `pad` are bytes before the first row and behind each.
class EncodedRows {
 public:
  EncodedRows(Rng& rng,
              const RowFormat& format,
              int64_t room,
              int64_t written,
              int64_t width,
              int64_t offset,
              int64_t pad)
      : format_(format),
        codes_(format, width),
        width_(width),
        stride_(RowBytes(format, width, codes_.host()) + pad),
        offset_(offset),
        bytes_(static_cast<size_t>(room * stride_)),
        values_(static_cast<size_t>(room * width)),
        device_(static_cast<size_t>(offset + room * stride_)) {
    for (float& value : values_) value = static_cast<float>(rng.NextNormal());
    const MatrixF rows(values_.data(), room, width);
    EncodeRows(rows, format, bytes_.data(), stride_, codes_.host());
    DecodeRows(bytes_.data(), format, stride_, rows, codes_.host());
    Write(0, written, nullptr);
    Synchronize(nullptr);
  }

  [[nodiscard]] double at(int64_t row, int64_t column) const {
    return values_[static_cast<size_t>(row * width_ + column)];
  }
  [[nodiscard]] CachedRows view() const {
    CachedRows rows = {device_.data() + offset_, RowCodeOf(format_), static_cast<int32_t>(width_),
                       stride_};
    codes_.Set(rows);
    return rows;
  }
  // Puts rows row .. row + count - 1 into place.
  void Write(int64_t row, int64_t count, StreamHandle stream) const {
    CopyToDevice(device_.data() + offset_ + row * stride_, bytes_.data() + row * stride_,
                 static_cast<size_t>(count * stride_), stream);
  }
  // Makes a row NaN, by its scale where it has one.
  void Break(int64_t row) {
    std::vector<float> broken(static_cast<size_t>(width_), std::nanf(""));
    EncodeRows({broken.data(), 1, width_}, format_, bytes_.data() + row * stride_, stride_);
    Write(row, 1, nullptr);
    Synchronize(nullptr);
  }
  [[nodiscard]] int64_t RowSize() const { return RowBytes(format_, width_, codes_.host()); }

 private:
  RowFormat format_;
  TestCodes codes_;
  int64_t width_, stride_, offset_;
  std::vector<std::byte> bytes_;  // [room, stride]
  std::vector<float> values_;     // [room, width], as decoded
  DeviceArray<std::byte> device_;
};

}  // namespace kvc::cuda
