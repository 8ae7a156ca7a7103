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
#include "core/base/rng.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/runtime.h"

namespace kvc::bench {

// One layer of B sequences. The kernel is the runtime's, with a plan as the runtime makes it.
class DeviceAttention {
 public:
  // The timer must outlive the object. Throws kUsage for latents of skewed heads, which share them,
  // kUnsupported for widths that the kernel cannot read, kDevice where the device has no room.
  DeviceAttention(const AttentionShape& shape, LaunchTimer& timer);

  // Bytes of keys and values that a step reads; latents that heads share count once.
  [[nodiscard]] int64_t bytes() const { return bytes_; }
  // How the plan has rows read: "bf16", "f16", "f32", "mixed", "any" or "latents".
  [[nodiscard]] std::string_view reader() const;
  [[nodiscard]] int64_t blocks() const { return plan_.launch.blocks; }
  [[nodiscard]] Times Measure(int64_t repetitions);
  // The largest difference of the last step's outputs from the same attention in double precision
  // without any rounding, over the largest output; of `heads` query heads, spread over the
  // sequences.
  [[nodiscard]] double LargestError(int64_t heads) const;

 private:
  struct Plane {
    int64_t first_key = 0;  // of the pattern
    int64_t first = 0;      // likewise, of values
    int64_t rows = 0;
  };
  // How latents become keys: a matrix for each kv head of a sequence, and the rotation of all.
  struct Latents {
    std::vector<float> matrices;             // [G, D, R]
    std::vector<float> cos, sin;             // [tokens, D / 2]
    std::vector<cuda::DeviceBuffer> packed;  // [G]
    cuda::DeviceBuffer device_cos, device_sin;
  };
  struct Tier {
    RowPattern keys, values;
  };
  void MakePlan();
  void FillRows();
  void MakeLatents(Rng& rng);
  [[nodiscard]] cuda::LatentKeys LatentsOf(int64_t kv_head) const;
  [[nodiscard]] int64_t QueryWidth() const {
    return shape_.rebuild ? shape_.width : shape_.key_width;
  }
  // A key in double precision: row r of a tier's pattern, row `position` of its plane.
  [[nodiscard]] std::vector<double> Key(int64_t head,
                                        const float* row,
                                        int64_t width,
                                        int64_t position) const;
  void Launch() const;
  [[nodiscard]] std::vector<double> Reference(int64_t head, int64_t query) const;

  AttentionShape shape_;
  LaunchTimer& timer_;
  std::vector<Tier> tiers_;
  int64_t bytes_ = 0;
  std::vector<Plane> planes_;  // [B * G * tiers]
  Latents latents_;
  std::vector<float> queries_;  // [B, H, QueryWidth()]
  cuda::DeviceBuffer rows_, device_queries_, outputs_;
  std::vector<cuda::DecodeSegment> segments_;  // [B * G * tiers]
  cuda::DecodePlan plan_;
  cuda::DeviceBuffer device_segments_, heads_, pieces_, first_, partials_, arrived_;
};

}  // namespace kvc::bench
