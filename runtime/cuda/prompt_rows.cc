#include "runtime/cuda/prompt_rows.h"

#include <vector>

#include "core/base/error.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/rebuild_keys.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/device_table.h"

namespace kvc::runtime {
namespace {

// Keys [T, n * R] and values [T, G * D] of the batch behind the rows of the layer's recent blocks.
void AppendBlockMoves(const AttentionStep& step,
                      const cuda::Rows& k,
                      const cuda::Rows& v,
                      RowRange rows,
                      const LayerCache& layer,
                      std::vector<cuda::RowMove>& moves) {
  const int64_t width = v.width / step.num_kv_heads;
  int64_t head = 0;
  for (size_t n = 0; n < layer.groups.size(); ++n) {
    const CacheBlock& block = layer.groups[n].recent;
    KVC_CHECK(block.rows() + rows.count <= block.capacity(), kInternal,
              "cache block: expected room for {} rows, got {}", rows.count,
              block.capacity() - block.rows());
    const auto add = [&](const cuda::CachedRows& from, const cuda::CachedRows& to) {
      moves.push_back({from, to, nullptr, nullptr, static_cast<int32_t>(rows.first),
                       static_cast<int32_t>(block.rows()), static_cast<int32_t>(rows.count), 0});
    };
    add(FloatColumns(k, static_cast<int64_t>(n) * step.stored_width, step.key_ranks[n]),
        KeysOnDevice(block));
    for (int64_t plane = 0; plane < block.shape().heads; ++plane) {
      add(FloatColumns(v, head++ * width, width), ValuesOnDevice(block, plane));
    }
  }
}

// Keys of each kv head [G] in floats, where a layer's are latents: the chunk's are rebuilt behind
// those of the chunks before it.
std::vector<cuda::CachedRows> RebuildChunk(int64_t layer,
                                           const LayerCache& store,
                                           CudaActivations& x,
                                           CudaDevice& device) {
  const AttentionStep& step = x.plan().attentions[layer];
  std::vector<cuda::CachedRows> keys;
  if (!step.latent) return keys;
  std::vector<cuda::KeyRebuild> rebuilds;
  const int64_t planes = step.num_kv_heads / std::ssize(store.groups);
  const int64_t row_bytes = step.head_width * static_cast<int64_t>(sizeof(float));
  float* next = x.MakeRebuiltKeys(step.num_kv_heads * step.head_width);  // [G][rows, D]
  for (int64_t g = 0; g < step.num_kv_heads; ++g) {
    keys.push_back({next, cuda::RowCode::kF32, static_cast<int32_t>(step.head_width), row_bytes});
    next += x.hidden().rows * step.head_width;
    cuda::KeyRebuild& rebuild = rebuilds.emplace_back();
    rebuild.how = x.model().latents(layer)[g];
    rebuild.latents = RowsAt(KeysOnDevice(store.groups[g / planes].recent), x.first());
    rebuild.keys = RowsAt(keys.back(), x.first());
    rebuild.positions = x.positions();
    rebuild.rows = static_cast<int32_t>(x.batch_rows());
  }
  DeviceTable<cuda::KeyRebuild> table;
  table.Set(rebuilds, device);
  cuda::RebuildKeys(table.data(), static_cast<int32_t>(rebuilds.size()), cuda::MostRows(rebuilds),
                    device.stream());
  return keys;
}

cuda::Rows RowsFrom(cuda::Rows rows, RowRange range) {
  rows.data = static_cast<float*>(rows.data) + range.first * rows.stride;
  rows.rows = range.count;
  return rows;
}

}  // namespace

void StorePromptRows(int64_t layer,
                     RowRange rows,
                     int64_t first_position,
                     const CudaActivations& x,
                     SequenceCache& cache,
                     CudaDevice& device) {
  const AttentionStep& step = x.plan().attentions[layer];
  LayerCache& store = cache.layer(layer);
  std::vector<cuda::RowMove> moves;
  AppendBlockMoves(step, x.AttentionIn(layer, 1), x.AttentionIn(layer, 2), rows, store, moves);
  const cuda::Rows q = x.AttentionIn(layer, 0);
  if (!cache.spec().full()) {
    AppendQueryMoves(RowsFrom(q, rows), q.width / step.num_heads, store.queries, moves);
    if (store.queries.rows() > 0) store.queries.Pushed(rows.count);
  }
  LaunchMoves(moves, device);
  for (GroupCache& group : store.groups) group.recent.Appended(rows.count, first_position);
}

void AttendWorkingBlocks(int64_t layer,
                         const SequenceCache& cache,
                         CudaActivations& x,
                         CudaDevice& device) {
  const AttentionStep& step = x.plan().attentions[layer];
  const LayerCache& store = cache.layer(layer);
  const cuda::Rows q = x.AttentionIn(layer, 0);
  const cuda::Rows out = x.AttentionOut(layer);
  const int64_t group = step.num_heads / step.num_kv_heads;
  const int64_t planes = step.num_kv_heads / std::ssize(store.groups);
  const std::vector<cuda::CachedRows> rebuilt = RebuildChunk(layer, store, x, device);
  std::vector<cuda::PrefillHead> heads;
  for (int64_t g = 0; g < step.num_kv_heads; ++g) {
    const CacheBlock& block = store.groups[g / planes].recent;
    cuda::PrefillHead& head = heads.emplace_back();
    head.keys = step.latent ? rebuilt[g] : KeysOnDevice(block);
    head.values = ValuesOnDevice(block, g % planes);
    head.query_head_stride = q.width / step.num_heads;
    head.output_head_stride = out.width / step.num_heads;
    head.queries = static_cast<const float*>(q.data) + g * group * head.query_head_stride;
    head.outputs = static_cast<float*>(out.data) + g * group * head.output_head_stride;
  }
  DeviceTable<cuda::PrefillHead> table;
  table.Set(heads, device);
  cuda::PrefillChunk chunk;
  chunk.tokens = static_cast<int32_t>(x.batch_rows());
  chunk.first = static_cast<int32_t>(x.first());
  chunk.group = static_cast<int32_t>(group);
  chunk.scale = step.scale;
  chunk.window = static_cast<int32_t>(step.window);
  chunk.query_stride = q.stride;
  chunk.output_stride = out.stride;
  cuda::PrefillAttention(table.data(), cuda::PlanPrefill(heads), chunk, device.stream());
}

}  // namespace kvc::runtime
