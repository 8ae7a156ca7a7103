#include "bench/support/attention_problem.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/base/error.h"
#include "core/base/sizes.h"

namespace kvc::bench {
namespace {

int64_t KeyHeads(const AttentionShape& shape) { return shape.rebuild ? 1 : shape.kv_heads; }

void Check(const AttentionShape& shape) {
  const auto check = [](bool good, const char* what) {
    KVC_CHECK(good, kUsage, "--shape: expected {}", what);
  };
  check(shape.kv_heads > 0 && shape.query_heads > 0, "heads and kv of at least 1");
  check(shape.query_heads % shape.kv_heads == 0, "heads to be a multiple of kv");
  check(shape.width > 0 && shape.key_width > 0 && shape.tokens > 0, "positive widths and tokens");
  check(!shape.rebuild || shape.width % 2 == 0, "an even width with latent, which is rotated");
}

void SetPart(std::string_view part, AttentionShape& shape, bool& has_key) {
  const size_t equals = part.find('=');
  const std::string name(part.substr(0, equals));
  const std::string value(equals == std::string_view::npos ? "" : part.substr(equals + 1));
  const std::string option = "--shape: " + name;
  if (name == "dtype") {
    shape.format = RowFormatFromName(value);
    return;
  }
  if (name == "heads") {
    shape.query_heads = ParseLength(value, option);
  } else if (name == "kv") {
    shape.kv_heads = ParseLength(value, option);
  } else if (name == "width") {
    shape.width = ParseLength(value, option);
  } else if (name == "tokens") {
    shape.tokens = ParseLength(value, option);
  } else if (name == "key" || name == "latent") {
    KVC_CHECK(!has_key, kUsage, "--shape: expected key or latent once");
    has_key = true;
    shape.key_width = ParseLength(value, option);
    shape.rebuild = name == "latent";
  } else {
    KVC_THROW(kUsage,
              "--shape: expected heads, kv, width, key, latent, tokens or dtype, got \"{}\"", name);
  }
}

}  // namespace

std::vector<char> CheapRows(int64_t rows, int64_t width, const RowFormat& format) {
  constexpr int64_t kPattern = 3000;
  const int64_t stride = RowBytes(format, width);
  std::vector<char> bytes(static_cast<size_t>(rows * stride));
  std::vector<float> pattern(static_cast<size_t>(kPattern + width));
  for (size_t i = 0; i < pattern.size(); ++i) pattern[i] = std::sin(static_cast<float>(i));
  for (int64_t r = 0; r < rows; ++r) {
    EncodeRows({pattern.data() + r * width % kPattern, 1, width}, format, bytes.data() + r * stride,
               stride);
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

int64_t AttentionShape::LayerBytes() const {
  return tokens *
         (KeyHeads(*this) * RowBytes(format, key_width) + kv_heads * RowBytes(format, width));
}

AttentionShape ParseAttentionShape(std::string_view text) {
  AttentionShape shape;
  bool has_key = false;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    SetPart(text.substr(0, comma), shape, has_key);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  if (!has_key) shape.key_width = shape.width;
  Check(shape);
  return shape;
}

AttentionProblem::AttentionProblem(const AttentionShape& shape, int64_t least_bytes)
    : positions_(static_cast<size_t>(shape.tokens)) {
  Check(shape);
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
  const int64_t key_stride = RowBytes(shape.format, shape.key_width);
  const int64_t value_stride = RowBytes(shape.format, shape.width);
  kernels::Segment segment;
  segment.keys = {keys_.data() + rows_before * key_stride, shape.format, shape.tokens,
                  shape.key_width, key_stride};
  segment.values = {values_.data() + values_before * value_stride, shape.format, shape.tokens,
                    shape.width, value_stride};
  segment.positions = positions_.data();
  kernels::DecodeHead head;
  head.segments = {segment};
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
