#include "runtime/cpu/decode_batch.h"

#include <algorithm>

#include "runtime/cpu/cache_rows.h"

namespace kvc::runtime {

int64_t QueryStride(const AttentionStep& step, ConstMatrixF q) { return q.cols / step.num_heads; }

void StoreRows(
    LayerCache& cache, const AttentionStep& step, ConstMatrixF k, ConstMatrixF v, int64_t first) {
  const auto groups = std::ssize(cache.groups);
  const int64_t values = v.cols / groups;
  for (int64_t n = 0; n < groups; ++n) {
    AppendRows(k.ColRange(n * step.stored_width, step.stored_width), v.ColRange(n * values, values),
               first, cache.groups[n].recent);
  }
}

void DecodeBatch::Start(const AttentionStep& step, std::span<const kernels::KeyRebuild> rebuild) {
  rebuild_ = rebuild;
  step_ = &step;
  heads_.clear();
  restored_.clear();
  taken_ = 0;
}

MatrixF DecodeBatch::Take(int64_t rows, int64_t cols) {
  if (taken_ == buffers_.size()) buffers_.emplace_back();
  std::vector<float>& buffer = buffers_[taken_++];
  if (std::ssize(buffer) < rows * cols) buffer.resize(static_cast<size_t>(rows * cols));
  return {buffer.data(), rows, cols};
}

void DecodeBatch::Store(SequenceCache& cache, ConstMatrixF k, ConstMatrixF v, int64_t position) {
  LayerCache& layer = cache.layer(step_->layer);
  if (!layer.in_coordinates()) {
    StoreRows(layer, *step_, k, v, position);
    return;
  }
  const MatrixF keys = Take(1, k.cols);
  const MatrixF values = Take(1, v.cols);
  const int64_t width = v.cols / step_->num_kv_heads;
  for (int64_t g = 0; g < step_->num_kv_heads; ++g) {
    ValueBasis(*layer.coordinates, g)
        .ToCoordinates(v.ColRange(g * width, width), values.ColRange(g * width, width));
  }
  for (int64_t n = 0; n < std::ssize(layer.groups); ++n) {
    const int64_t rank = step_->key_ranks[n];
    const ConstMatrixF from = k.ColRange(n * step_->stored_width, rank);
    const MatrixF to = keys.ColRange(n * step_->stored_width, rank);
    if (step_->latent) {
      std::copy_n(from.data, rank, to.data);
    } else {
      KeyBasis(*layer.coordinates, n).ToCoordinates(from, to);
    }
  }
  StoreRows(layer, *step_, keys, values, position);
}

void DecodeBatch::Add(const SequenceCache& cache, ConstMatrixF q, MatrixF out) {
  const LayerCache& layer = cache.layer(step_->layer);
  const bool in_coordinates = layer.in_coordinates();
  const int64_t group_size = step_->num_heads / step_->num_kv_heads;
  const int64_t planes = step_->num_kv_heads / std::ssize(layer.groups);
  const int64_t stride = QueryStride(*step_, q);
  const int64_t value_width = out.cols / step_->num_heads;
  for (int64_t g = 0; g < step_->num_kv_heads; ++g) {
    const GroupCache& group = layer.groups[g / planes];
    kernels::DecodeHead& head = heads_.emplace_back();
    for (const CacheBlock& tier : group.tiers) {
      if (tier.rows() > 0) head.segments.push_back(SegmentOf(tier, g % planes));
    }
    head.segments.push_back(SegmentOf(group.recent, g % planes));
    head.rebuild = step_->latent ? &rebuild_[g] : nullptr;
    const int64_t width = step_->latent ? stride : step_->key_ranks[g];
    head.queries = {q.data + g * group_size * stride, group_size, width, stride};
    head.outputs = {out.data + g * group_size * value_width, group_size, value_width, value_width};
    if (!in_coordinates) continue;
    if (!step_->latent) {
      const MatrixF queries = Take(group_size, width);
      KeyBasis(*layer.coordinates, g).ToQueries(head.queries, queries);
      head.queries = queries;
    }
    const MatrixF outputs = Take(group_size, value_width);
    restored_.push_back({ValueBasis(*layer.coordinates, g), outputs, head.outputs});
    head.outputs = outputs;
  }
}

void DecodeBatch::Attend(ThreadPool& pool) {
  kernels::DecodeAttention(heads_, step_->scale, pool);
  for (const Restored& head : restored_) {
    head.basis.FromCoordinates(head.coordinates, head.outputs);
  }
}

}  // namespace kvc::runtime
