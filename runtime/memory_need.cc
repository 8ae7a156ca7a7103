#include "runtime/memory_need.h"

#include <algorithm>
#include <vector>

#include "runtime/cache/cache_block.h"

namespace kvc::runtime {
namespace {

constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));

// A layer's allocations before and after it is compressed.
struct LayerNeed {
  int64_t working = 0;  // working blocks
  int64_t ring = 0;
  int64_t kept = 0;  // tiers and recent blocks, or the working blocks where they stay
  int64_t kept_ring = 0;
};

LayerNeed NeedOf(const PromptCache& cache,
                 int64_t layer,
                 std::span<const int64_t> rows,
                 int64_t length) {
  const CacheSpec& spec = *cache.spec;
  const int64_t window = spec.AttentionWindow(layer);
  int64_t working_rows = spec.full() ? GrownRows(std::max(length, cache.reserve)) : length;
  if (window > 0) working_rows = std::max(length, std::min(working_rows, window));
  LayerNeed need;
  for (int64_t n = 0; n < std::ssize(spec.layers[layer]); ++n) {
    need.working += working_rows * WorkingShape(spec, layer, n).BytesPerRow();
    if (spec.full() && window == 0) continue;
    const GroupRows layout = LayoutLayerRows(spec, layer, rows[n], length);
    need.kept += LayoutBytes(spec, layer, spec.layers[layer][n], layout);
  }
  if (spec.full()) return need;
  CacheSpec large = spec;
  large.query_ring = std::max(spec.query_ring, cache.least_queries);
  need.ring = QueryRingBytes(large, layer);
  need.kept_ring = QueryRingBytes(spec, layer);
  return need;
}

// Bytes of all queries of a layer.
int64_t QueryBytes(const Plan& plan, int64_t length) {
  int64_t widest = 0;
  for (const AttentionStep& step : plan.attentions) {
    widest = std::max(widest, step.num_heads * step.stored_width);
  }
  return length * widest * kFloatBytes;
}

}  // namespace

int64_t PeakCacheBytes(const PromptCache& cache, int64_t length) {
  const CacheSpec& spec = *cache.spec;
  const auto rows = RowsAt(spec, length);
  const bool all_at_once = spec.method == Method::kAdaModel;  // layers are compressed at the end
  std::vector<LayerNeed> needs;
  int64_t held = 0;
  int64_t peak = 0;
  const auto fill = [&](const LayerNeed& need) {
    held += need.working + need.ring;
    peak = std::max(peak, held);
  };
  const auto compress = [&](const LayerNeed& need) {
    if (need.kept == 0) return;  // the working blocks stay
    peak = std::max(peak, held + need.kept);
    held += need.kept - need.working;
    if (need.kept_ring == need.ring) return;  // it stays
    peak = std::max(peak, held + need.kept_ring);
    held += need.kept_ring - need.ring;
  };
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    needs.push_back(NeedOf(cache, l, rows[l], length));
    fill(needs.back());
    if (!all_at_once) compress(needs.back());
  }
  if (!all_at_once) return peak;
  for (const LayerNeed& need : needs) compress(need);
  return peak;
}

int64_t PromptBytes(const Plan& plan,
                    std::span<const PromptCache> caches,
                    int64_t length,
                    int64_t chunk,
                    int64_t logits) {
  int64_t floats = length * plan.model_width + std::min(chunk, logits) * plan.vocab_size;
  for (const int64_t width : plan.slot_widths) floats += chunk * width;
  int64_t bytes = floats * kFloatBytes;
  if (std::ranges::any_of(caches, &PromptCache::prompt_queries)) bytes += QueryBytes(plan, length);
  for (const PromptCache& cache : caches) bytes += PeakCacheBytes(cache, length);
  return bytes;
}

}  // namespace kvc::runtime
