#include "runtime/cpu/decode_batch.h"

#include <algorithm>

#include "core/base/error.h"
#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/store_rows.h"

namespace kvc::runtime {
namespace {

SegmentTables& TablesOf(LayerCache& layer) {
  if (layer.tables == nullptr) layer.tables = std::make_unique<SegmentTables>(layer);
  auto* tables = dynamic_cast<SegmentTables*>(layer.tables.get());
  KVC_CHECK(tables != nullptr, kInternal, "cpu: expected its own tables of a layer, got another's");
  return *tables;
}

}  // namespace

SegmentTables::SegmentTables(const LayerCache& layer) {
  for (const GroupCache& group : layer.groups) {
    planes_ = group.recent.shape().heads;
    for (int64_t plane = 0; plane < planes_; ++plane) {
      std::vector<kernels::Segment>& segments = heads_.emplace_back();
      for (const CacheBlock& tier : group.tiers) {
        if (tier.rows() > 0) segments.push_back(SegmentOf(tier, plane));
      }
      segments.push_back(SegmentOf(group.recent, plane));
    }
  }
}

std::span<const kernels::Segment> SegmentTables::Of(int64_t head, const LayerCache& layer) {
  const int64_t rows = layer.groups[head / planes_].recent.rows();
  kernels::Segment& recent = heads_[head].back();
  recent.keys.rows = rows;
  recent.values.rows = rows;
  return heads_[head];
}

void DecodeBatch::Start(const AttentionStep& step) {
  step_ = &step;
  num_heads_ = 0;
  restored_.clear();
  taken_ = 0;
}

MatrixF DecodeBatch::Take(int64_t rows, int64_t cols) {
  if (taken_ == buffers_.size()) buffers_.emplace_back();
  std::vector<float>& buffer = buffers_[taken_++];
  if (std::ssize(buffer) < rows * cols) buffer.resize(static_cast<size_t>(rows * cols));
  return {buffer.data(), rows, cols};
}

kernels::DecodeHead& DecodeBatch::NextHead() {
  if (num_heads_ == heads_.size()) heads_.emplace_back();
  return heads_[num_heads_++];
}

void DecodeBatch::Add(SequenceCache& cache,
                      std::span<const kernels::KeyRebuild> rebuild,
                      ConstMatrixF q,
                      MatrixF out) {
  LayerCache& layer = cache.layer(step_->layer);
  SegmentTables& tables = TablesOf(layer);
  const bool in_coordinates = layer.in_coordinates();
  const int64_t group_size = step_->num_heads / step_->num_kv_heads;
  const int64_t planes = step_->num_kv_heads / std::ssize(layer.groups);
  const int64_t stride = QueryStride(*step_, q);
  const int64_t value_width = out.cols / step_->num_heads;
  for (int64_t g = 0; g < step_->num_kv_heads; ++g) {
    kernels::DecodeHead& head = NextHead();
    head.segments = tables.Of(g, layer);
    head.rebuild = step_->latent ? &rebuild[g] : nullptr;
    const int64_t width = step_->latent ? stride : step_->key_ranks[g / planes];
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
  kernels::DecodeAttention(std::span(heads_).first(num_heads_), step_->scale, pool);
  for (const Restored& head : restored_) {
    head.basis.FromCoordinates(head.coordinates, head.outputs);
  }
}

}  // namespace kvc::runtime
