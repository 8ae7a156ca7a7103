#pragma once
// What turning a layer's working blocks into tiers costs a device: gathering the rows that are kept
// or, where tiers are narrower than a row, projecting them into coordinates (runtime/cuda does both
// with these launches).

#include <cstdint>
#include <vector>

#include "bench/device/launch_timer.h"
#include "bench/device/row_pattern.h"
#include "bench/support/attention_shape.h"
#include "bench/support/repeat.h"
#include "kernels/cuda/move_rows.h"
#include "kernels/cuda/project_rows.h"
#include "kernels/cuda/runtime.h"

namespace kvc::bench {

// One layer of B sequences of T tokens, whose heads keep random rows, as many as the shape says.
class DeviceCompression {
 public:
  // The timer must outlive the object. Throws kUsage for latents and for heads that would keep more
  // rows than there are tokens, kDevice where the device has no room.
  DeviceCompression(const AttentionShape& shape, LaunchTimer& timer);

  // Bytes of keys and values: of the working blocks, of the rows that are kept, read and written.
  [[nodiscard]] int64_t full_bytes() const { return full_bytes_; }
  [[nodiscard]] int64_t read_bytes() const { return read_bytes_; }
  [[nodiscard]] int64_t kept_bytes() const { return kept_bytes_; }
  // Whether rows change their basis on the way.
  [[nodiscard]] bool projects() const { return shape_.tiers.size() > 1; }

  // The launch alone.
  [[nodiscard]] Times MeasureLaunch(int64_t repetitions);
  // The launch behind the upload of the lists of rows and of its table.
  [[nodiscard]] Times MeasureWithLists(int64_t repetitions);
  // The largest difference of what the last launch wrote from the same in double precision, over
  // the largest number; of `rows` rows of each target. 0 where rows keep their basis and all is
  // right.
  [[nodiscard]] double LargestError(int64_t rows) const;

 private:
  // The rows of a head that a tier keeps, of its keys or of its values.
  struct Target {
    int64_t pattern = 0;  // 0: keys, 1: values
    int64_t first = 0;    // row of the pattern where the working block begins
    int64_t list = 0;     // its rows begin here in lists_
    int64_t rows = 0;
    int64_t width = 0;
  };
  void MakeWorkingBlocks();
  void ChooseRows(Rng& rng);
  void MakeBases(Rng& rng);
  void MakeTable();
  void Launch() const;
  [[nodiscard]] int64_t full_width(const Target& target) const;
  [[nodiscard]] double Expected(const Target& target, int64_t row, int64_t column) const;

  AttentionShape shape_;
  LaunchTimer& timer_;
  std::vector<RowPattern> patterns_;  // keys, values
  std::vector<float> bases_[2];       // [width, width] of keys, of values; empty: none
  int64_t full_bytes_ = 0;
  int64_t read_bytes_ = 0;
  int64_t kept_bytes_ = 0;
  std::vector<cuda::CachedRows> working_;  // [B * G * 2]
  std::vector<Target> targets_;
  std::vector<int32_t> lists_;
  std::vector<cuda::RowMove> moves_;
  std::vector<cuda::RowProjection> projections_;
  cuda::ProjectionSize size_;
  int32_t most_rows_ = 0;
  cuda::DeviceBuffer blocks_, kept_, device_lists_, device_bases_[2], table_;
};

}  // namespace kvc::bench
