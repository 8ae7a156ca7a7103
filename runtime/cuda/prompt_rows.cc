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
  std::vector<cuda::PrefillHead> heads;
  for (int64_t g = 0; g < step.num_kv_heads; ++g) {
    const CacheBlock& block = store.groups[g / planes].recent;
    cuda::PrefillHead& head = heads.emplace_back();
    head.keys = KeysOnDevice(block);
    if (step.latent) head.latents = x.model().latents(layer)[g];
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
  const cuda::PrefillPlan plan = cuda::PlanPrefill(heads);
  chunk.splits = cuda::PrefillSplits(plan, chunk, device.blocks());
  const cuda::PrefillRoom room = x.MakeSplitRoom(cuda::PrefillRoomOf(plan, chunk));
  cuda::PrefillAttention(table.data(), plan, chunk, room, device.stream());
}

}  // namespace kvc::runtime
