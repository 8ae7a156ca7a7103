#pragma once
// A cache of random rows on the device, what decode attention makes of it, and the reference in
// double.

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "kernels/cuda/decode_attention.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {

struct SegmentSize {
  int64_t rows, key_width, value_width;
};
struct DecodeShape {
  std::string name;
  int32_t group;
  int32_t blocks;
  std::vector<std::vector<SegmentSize>> heads;
  int32_t query_width = 0;  // 0: of the widest segment
};

class DecodeCase {
 public:
  DecodeCase(const DecodeShape& shape, DType dtype, Rng& rng);
  // Runs the plan, `times` launches, and returns the outputs [heads][group * output_width].
  std::vector<std::vector<float>> Run(int times = 1);
  // The largest error of Run's outputs in units of its bound; NaN counts as infinite.
  double WorstError(const std::vector<std::vector<float>>& outputs) const;
  [[nodiscard]] const DecodePlan& plan() const { return plan_; }
  [[nodiscard]] int64_t Bytes() const;  // of keys and values

 private:
  struct Reference {
    std::vector<double> output, bound;  // [output_width]
  };
  [[nodiscard]] Reference ReferenceOf(size_t head, int32_t query) const;
  [[nodiscard]] double Score(size_t head, int32_t query, int32_t segment, int64_t row) const;

  DType dtype_;
  int32_t blocks_;
  float scale_ = 0.0F;
  std::deque<TestRows> keys_, values_, queries_, outputs_;
  std::vector<DecodeSegment> segments_;
  std::vector<int32_t> segment_first_ = {0};
  DecodePlan plan_;
};

inline DecodeCase::DecodeCase(const DecodeShape& shape, DType dtype, Rng& rng)
    : dtype_(dtype), blocks_(shape.blocks) {
  std::vector<DecodeHead> heads;
  for (const auto& sizes : shape.heads) {
    DecodeHead head;
    head.query_width = shape.query_width == 0 ? 8 : shape.query_width;
    head.output_width = head.query_width;
    for (const SegmentSize& size : sizes) {
      keys_.push_back(RandomRows(rng, dtype, size.rows, size.key_width));
      values_.push_back(RandomRows(rng, dtype, size.rows, size.value_width));
      segments_.push_back({keys_.back().device.data(), values_.back().device.data(),
                           static_cast<int32_t>(size.rows), static_cast<int32_t>(size.key_width),
                           static_cast<int32_t>(size.value_width)});
      head.query_width = std::max(head.query_width, segments_.back().key_width);
      head.output_width = std::max(head.output_width, segments_.back().value_width);
    }
    segment_first_.push_back(static_cast<int32_t>(segments_.size()));
    queries_.push_back(RandomRows(rng, DType::kF32, shape.group, head.query_width, 4));
    outputs_.push_back(RandomRows(rng, DType::kF32, shape.group, head.output_width, 3));
    head.queries = static_cast<const float*>(queries_.back().view().data);
    head.outputs = static_cast<float*>(outputs_.back().view().data);
    head.query_stride = static_cast<int32_t>(queries_.back().stride);
    head.output_stride = static_cast<int32_t>(outputs_.back().stride);
    head.group = shape.group;
    heads.push_back(head);
  }
  scale_ = static_cast<float>(1.0 / std::sqrt(static_cast<double>(heads[0].query_width)));
  plan_ = PlanDecode(segments_, segment_first_, heads, dtype, shape.blocks);
}

inline std::vector<std::vector<float>> DecodeCase::Run(int times) {
  const DeviceArray<DecodeSegment> segments(segments_);
  const DeviceArray<DecodeHead> heads(plan_.heads);
  const DeviceArray<DecodePiece> pieces(plan_.pieces);
  const DeviceArray<int32_t> first(plan_.first);
  const DeviceArray<float> partials(
      static_cast<size_t>(plan_.partials * DecodePartialFloats(plan_.width)));
  const DeviceArray<int32_t> arrived(std::vector<int32_t>(plan_.heads.size(), 0));
  DecodeArguments in;
  in.segments = segments.data();
  in.heads = heads.data();
  in.pieces = pieces.data();
  in.first = first.data();
  in.partials = partials.data();
  in.arrived = arrived.data();
  in.scale = scale_;
  for (int i = 0; i < times; ++i) {
    for (const TestRows& output : outputs_) {
      FillZero(output.view().data, output.values.size() * sizeof(float), nullptr);
    }
    DecodeAttention(in, dtype_, plan_.width, blocks_, nullptr);
  }
  std::vector<std::vector<float>> outputs;
  for (const TestRows& output : outputs_) {
    const std::vector<float> now = output.Now();
    std::vector<float> rows;
    for (int64_t g = 0; g < output.rows; ++g) {
      rows.insert(rows.end(), now.begin() + g * output.stride,
                  now.begin() + g * output.stride + output.width);
    }
    outputs.push_back(rows);
  }
  return outputs;
}

inline double DecodeCase::Score(size_t head, int32_t query, int32_t segment, int64_t row) const {
  double score = 0.0;
  for (int64_t d = 0; d < keys_[segment].width; ++d) {
    // The kernel rounds queries to the rows' dtype.
    auto q = static_cast<float>(queries_[head].at(query, d));
    std::byte rounded[4];
    ConvertFromFloat(&q, 1, dtype_, rounded);
    ConvertToFloat(dtype_, rounded, 1, &q);
    score += static_cast<double>(q) * keys_[segment].at(row, d);
  }
  return score * static_cast<double>(scale_);
}

// Weights are rounded to the dtype on tensor cores (not their sum). Scores, of size 10 at most, and
// sums are in float: a relative error of each weight of 2^-16 holds for widths up to 128.
inline DecodeCase::Reference DecodeCase::ReferenceOf(size_t head, int32_t query) const {
  const int32_t width = plan_.heads[head].output_width;
  Reference result = {std::vector<double>(width, 0.0), std::vector<double>(width, 0.0)};
  double peak = -INFINITY;
  int64_t rows = 0;
  for (int32_t s = segment_first_[head]; s < segment_first_[head + 1]; ++s) {
    for (int64_t r = 0; r < segments_[s].rows; ++r, ++rows) {
      peak = std::max(peak, Score(head, query, s, r));
    }
  }
  double sum = 0.0;
  for (int32_t s = segment_first_[head]; s < segment_first_[head + 1]; ++s) {
    for (int64_t r = 0; r < segments_[s].rows; ++r) {
      const double weight = std::exp(Score(head, query, s, r) - peak);
      sum += weight;
      for (int32_t d = 0; d < segments_[s].value_width; ++d) {
        result.output[d] += weight * values_[s].at(r, d);
        // Small weights of f16 are rounded to multiples of 2^-24.
        const double small = dtype_ == DType::kF16 ? 0x1p-25 : 0.0;
        result.bound[d] += (weight + small) * std::abs(values_[s].at(r, d));
      }
    }
  }
  const double unit = (dtype_ == DType::kF32 ? 0.0 : UnitOf(dtype_)) + 0x1p-16;
  for (int32_t d = 0; d < width && rows > 0; ++d) {
    result.output[d] /= sum;
    result.bound[d] *= unit / sum;
  }
  return result;
}

inline double DecodeCase::WorstError(const std::vector<std::vector<float>>& outputs) const {
  double worst = 0.0;
  for (size_t h = 0; h < plan_.heads.size(); ++h) {
    const DecodeHead& head = plan_.heads[h];
    for (int32_t g = 0; g < head.group; ++g) {
      const Reference reference = ReferenceOf(h, g);
      for (int32_t d = 0; d < head.output_width; ++d) {
        const double got = outputs[h][static_cast<size_t>(g * head.output_width + d)];
        const double error = std::abs(got - reference.output[d]);
        if (!(error <= worst * reference.bound[d])) {
          worst = std::isnan(error) || reference.bound[d] == 0.0 ? INFINITY
                                                                 : error / reference.bound[d];
        }
      }
    }
  }
  return worst;
}

inline int64_t DecodeCase::Bytes() const {
  int64_t bytes = 0;
  for (const DecodeSegment& s : segments_) {
    bytes += int64_t{s.rows} * (s.key_width + s.value_width) * DTypeBytes(dtype_);
  }
  return bytes;
}

}  // namespace kvc::cuda
