#pragma once
// A decode step's attention on a device, over made-up caches of a shape: ragged heads of several
// sequences, in tiers.

#include <cstdint>
#include <string_view>
#include <vector>

#include "bench/device/launch_timer.h"
#include "bench/device/row_pattern.h"
#include "bench/support/attention_shape.h"
#include "bench/support/repeat.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/runtime.h"

namespace kvc::bench {

// One layer of B sequences. The kernel is the runtime's, with a plan as the runtime makes it.
class DeviceAttention {
 public:
  // The timer must outlive the object. Throws kUsage for latents, kUnsupported for widths that the
  // kernel cannot read, kDevice where the device has no room.
  DeviceAttention(const AttentionShape& shape, LaunchTimer& timer);

  // Bytes of keys and values that a step reads.
  [[nodiscard]] int64_t bytes() const { return bytes_; }
  // How the plan has rows read: "bf16", "f16", "f32", or "any".
  [[nodiscard]] std::string_view reader() const;
  [[nodiscard]] int64_t blocks() const { return plan_.launch.blocks; }
  [[nodiscard]] Times Measure(int64_t repetitions);
  // The largest difference of the last step's outputs from the same attention in double precision
  // without any rounding, over the largest output; of `heads` query heads, spread over the
  // sequences.
  [[nodiscard]] double LargestError(int64_t heads) const;

 private:
  struct Plane {
    int64_t first = 0;  // of the pattern
    int64_t rows = 0;
  };
  struct Tier {
    RowPattern keys, values;
  };
  void MakePlan();
  void FillRows();
  void Launch() const;
  [[nodiscard]] std::vector<double> Reference(int64_t head, int64_t query) const;

  AttentionShape shape_;
  LaunchTimer& timer_;
  std::vector<Tier> tiers_;
  int64_t bytes_ = 0;
  std::vector<Plane> planes_;   // [B * G * tiers]
  std::vector<float> queries_;  // [B, H, key_width]
  cuda::DeviceBuffer rows_, device_queries_, outputs_;
  std::vector<cuda::DecodeSegment> segments_;  // [B * G * tiers]
  cuda::DecodePlan plan_;
  cuda::DeviceBuffer device_segments_, heads_, pieces_, first_, partials_, arrived_;
};

}  // namespace kvc::bench
