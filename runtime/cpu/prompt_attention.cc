#include "runtime/cpu/prompt_attention.h"

#include <vector>

#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/store_rows.h"

namespace kvc::runtime {

void AttendWorkingBlocks(const AttentionStep& step,
                         std::span<const kernels::KeyRebuild> rebuild,
                         const LayerCache& cache,
                         int64_t first,
                         ConstMatrixF q,
                         MatrixF out,
                         ThreadPool& pool,
                         kernels::InputRounding rounding) {
  const int64_t group_size = step.num_heads / step.num_kv_heads;
  const int64_t planes = step.num_kv_heads / std::ssize(cache.groups);
  const int64_t stride = QueryStride(step, q);
  const int64_t value_width = out.cols / step.num_heads;
  std::vector<kernels::PrefillHead> heads(static_cast<size_t>(step.num_kv_heads));
  for (int64_t g = 0; g < step.num_kv_heads; ++g) {
    const CacheBlock& block = cache.groups[g / planes].recent;
    kernels::PrefillHead& head = heads[g];
    head.keys = KeysOf(block);
    head.values = ValuesOf(block, g % planes);
    head.rebuild = step.latent ? &rebuild[g] : nullptr;
    const int64_t width = step.latent ? stride : step.key_ranks[g];
    for (int64_t h = g * group_size; h < (g + 1) * group_size; ++h) {
      head.queries.push_back(q.ColRange(h * stride, width));
      head.outputs.push_back(out.ColRange(h * value_width, value_width));
    }
  }
  kernels::PrefillAttention(heads, first, step.scale, pool, step.window, rounding);
}

}  // namespace kvc::runtime
