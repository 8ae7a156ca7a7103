#include "runtime/memory_need.h"

#include <algorithm>

#include "runtime/cache/cache_block.h"

namespace kvc::runtime {
namespace {

constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));

// Rows of the layer with the widest ones, before it is compressed.
int64_t WorkingBytes(const CacheSpec& spec, int64_t length) {
  int64_t widest = 0;
  for (int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    int64_t bytes = 0;
    for (int64_t n = 0; n < std::ssize(spec.layers[layer]); ++n) {
      bytes += length * WorkingShape(spec, layer, n).BytesPerRow();
    }
    widest = std::max(widest, bytes);
  }
  return widest;
}

}  // namespace

int64_t PromptBytes(const Plan& plan,
                    std::span<const CacheSpec* const> specs,
                    int64_t length,
                    int64_t chunk,
                    int64_t logits) {
  int64_t floats = length * plan.model_width + std::min(chunk, logits) * plan.vocab_size;
  for (const int64_t width : plan.slot_widths) floats += chunk * width;
  int64_t bytes = floats * kFloatBytes;
  for (const CacheSpec* spec : specs) {
    bytes += PredictBytes(*spec, length).allocated;
    if (!spec->full() || !spec->attention_windows.empty()) bytes += WorkingBytes(*spec, length);
  }
  return bytes;
}

}  // namespace kvc::runtime
