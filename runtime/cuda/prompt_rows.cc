#include "runtime/cuda/prompt_rows.h"

#include <vector>

#include "core/base/error.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/rebuild_keys.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/device_table.h"

namespace kvc::runtime {
namespace {

// Keys and values of the batch behind the rows of the layer's recent blocks.
void AppendStores(const AttentionStep& step,
                  const CudaActivations& x,
                  RowRange rows,
                  const LayerCache& layer,
                  std::vector<cuda::RowMove>& moves) {
  for (const GroupCache& group : layer.groups) {
    const CacheBlock& block = group.recent;
    KVC_CHECK(block.rows() + rows.count <= block.capacity(), kInternal,
              "cache block: expected room for {} rows, got {}", rows.count,
              block.capacity() - block.rows());
  }
  const auto first = static_cast<int32_t>(layer.groups[0].recent.rows());
  ForStoredPlanes(step, x, layer, LayerRows(), [&](const StoredPlane& plane) {
    moves.push_back({plane.from, plane.to, nullptr, nullptr, static_cast<int32_t>(rows.first),
                     first, static_cast<int32_t>(rows.count), 0});
  });
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
  AppendStores(step, x, rows, store, moves);
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
  const LayerRows rows;
  std::vector<cuda::PrefillHead> heads;
  for (int64_t g = 0; g < step.num_kv_heads; ++g) {
    const CacheBlock& block = store.groups[g / planes].recent;
    cuda::PrefillHead& head = heads.emplace_back();
    head.keys = rows.Keys(block);
    if (step.latent) head.latents = x.model().latents(layer)[g];
    head.values = rows.Values(block, g % planes);
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
