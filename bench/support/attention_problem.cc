#include "bench/support/attention_problem.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"

namespace kvc::bench {
namespace {

int64_t KeyHeads(const AttentionShape& shape) { return shape.rebuild ? 1 : shape.kv_heads; }

}  // namespace

std::vector<char> CheapRows(int64_t rows, int64_t width, const RowFormat& format) {
  constexpr int64_t kPattern = 3000;
  const CheapCode code(format, width);
  const int64_t stride = RowBytes(format, width, code.steps());
  std::vector<char> bytes(static_cast<size_t>(rows * stride));
  std::vector<float> pattern(static_cast<size_t>(kPattern + width));
  for (size_t i = 0; i < pattern.size(); ++i) pattern[i] = std::sin(static_cast<float>(i));
  for (int64_t r = 0; r < rows; ++r) {
    EncodeRows({pattern.data() + r * width % kPattern, 1, width}, format, bytes.data() + r * stride,
               stride, code.steps());
  }
  return bytes;
}

RebuildTables::RebuildTables(int64_t width, int64_t rank, int64_t positions, int64_t unit_rows)
    : matrix_(static_cast<size_t>(width * rank), 0.1F),
      cos_(static_cast<size_t>(positions * width / 2), 0.6F),
      sin_(static_cast<size_t>(positions * width / 2), 0.8F) {
  for (int64_t r = 0; r < unit_rows; ++r) {
    std::fill_n(matrix_.data() + r * rank, rank, 0.0F);
    matrix_[static_cast<size_t>(r * rank + r)] = 1.0F;
  }
  rebuild_.rebuild = {matrix_.data(), width, rank};
  rebuild_.units = kernels::FindUnitRows(rebuild_.rebuild);
  rebuild_.cos = {cos_.data(), positions, width / 2};
  rebuild_.sin = {sin_.data(), positions, width / 2};
}

AttentionProblem::AttentionProblem(const AttentionShape& shape, int64_t least_bytes)
    : key_code_(shape.format, shape.key_width),
      value_code_(shape.format, shape.width),
      positions_(static_cast<size_t>(shape.tokens)) {
  KVC_CHECK(shape.IsPlain(), kUsage,
            "--shape: expected no batch, budget, skew or tiers on the processor, got some; use "
            "--device cuda or emulator");
  const int64_t layers = (least_bytes + shape.LayerBytes() - 1) / shape.LayerBytes();
  const int64_t query_width = shape.rebuild ? shape.width : shape.key_width;
  keys_ = CheapRows(layers * KeyHeads(shape) * shape.tokens, shape.key_width, shape.format);
  values_ = CheapRows(layers * shape.kv_heads * shape.tokens, shape.width, shape.format);
  queries_.assign(static_cast<size_t>(shape.query_heads * query_width), 0.01F);
  outputs_.resize(static_cast<size_t>(shape.query_heads * shape.width));
  std::iota(positions_.begin(), positions_.end(), 0);
  if (shape.rebuild) {
    const int64_t share = std::min(shape.width, shape.key_width / shape.kv_heads);
    const int64_t unit_rows = shape.format == kRowsF32 ? share : 0;
    rebuild_.emplace(shape.width, shape.key_width, shape.tokens, unit_rows);
  }
  segments_.resize(layers * shape.kv_heads);
  for (int64_t l = 0; l < layers; ++l) {
    auto& heads = layers_.emplace_back();
    for (int64_t g = 0; g < shape.kv_heads; ++g) heads.push_back(HeadOf(shape, l, g));
  }
}

kernels::DecodeHead AttentionProblem::HeadOf(const AttentionShape& shape,
                                             int64_t layer,
                                             int64_t g) {
  const int64_t group = shape.query_heads / shape.kv_heads;
  const int64_t query_width = shape.rebuild ? shape.width : shape.key_width;
  // Rows in front of this head's rows.
  const int64_t rows_before = (layer * KeyHeads(shape) + (shape.rebuild ? 0 : g)) * shape.tokens;
  const int64_t values_before = (layer * shape.kv_heads + g) * shape.tokens;
  const int64_t key_stride = RowBytes(shape.format, shape.key_width, key_code_.steps());
  const int64_t value_stride = RowBytes(shape.format, shape.width, value_code_.steps());
  kernels::Segment& segment = segments_[layer * shape.kv_heads + g];
  segment.keys = {keys_.data() + rows_before * key_stride,
                  shape.format,
                  shape.tokens,
                  shape.key_width,
                  key_stride,
                  key_code_.steps()};
  segment.values = {values_.data() + values_before * value_stride,
                    shape.format,
                    shape.tokens,
                    shape.width,
                    value_stride,
                    value_code_.steps()};
  segment.positions = positions_.data();
  kernels::DecodeHead head;
  head.segments = {&segment, 1};
  head.rebuild = rebuild_ ? &rebuild_->rebuild() : nullptr;
  head.queries = {queries_.data() + g * group * query_width, group, query_width};
  head.outputs = {outputs_.data() + g * group * shape.width, group, shape.width};
  return head;
}

void AttentionProblem::Step(ThreadPool& pool) {
  constexpr float kScale = 0.125F;
  kernels::DecodeAttention(layers_[next_], kScale, pool);
  next_ = (next_ + 1) % layers_.size();
}

}  // namespace kvc::bench
