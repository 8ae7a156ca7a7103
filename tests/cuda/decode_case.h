#pragma once
// A cache of random rows on the device, what decode attention makes of it, and the reference in
// double.

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/decode_attention.h"
#include "tests/cuda/encoded_rows.h"
#include "tests/cuda/latent_case.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {

struct SegmentSize {
  int64_t rows, key_width, value_width;
  std::optional<RowFormat> keys = std::nullopt;  // else the case's
  std::optional<RowFormat> values = std::nullopt;
  int64_t offset = 0;  // bytes before the first row
  int64_t pad = 0;     // bytes behind each row
  int64_t grows = 0;   // rows that Append will bring
};
struct DecodeShape {
  std::string name;
  int32_t group;
  int32_t blocks;
  std::vector<std::vector<SegmentSize>> heads;
  int32_t query_width = 0;   // 0: of the widest segment
  LatentShape latents = {};  // key widths are then of latents
  bool positions = true;     // of latents: other than their numbers
};

// A plan's arrays on the device, with room for any plan of its launch.
class DevicePlan {
 public:
  DevicePlan(const DecodePlan& plan, const std::vector<DecodeSegment>& segments)
      : segments_(segments.size()),
        heads_(plan.heads.size()),
        pieces_(static_cast<size_t>(MostDecodePieces(std::ssize(plan.heads),
                                                     std::ssize(segments) * std::ssize(plan.heads),
                                                     plan.launch.blocks))),
        first_(plan.first.size()),
        partials_(
            static_cast<size_t>(MostDecodePartials(std::ssize(plan.heads), plan.launch.blocks) *
                                DecodePartialFloats(plan.launch.width))),
        arrived_(std::vector<int32_t>(plan.heads.size(), 0)) {
    Overwrite(plan, segments);
  }
  void Overwrite(const DecodePlan& plan, const std::vector<DecodeSegment>& segments) const {
    const auto write = [](const auto& array, const auto& values) {
      CopyToDevice(array.data(), values.data(), values.size() * sizeof(values[0]), nullptr);
    };
    write(segments_, segments);
    write(heads_, plan.heads);
    write(pieces_, plan.pieces);
    write(first_, plan.first);
    Synchronize(nullptr);
  }
  [[nodiscard]] DecodeArguments Arguments(float scale) const {
    return {segments_.data(), heads_.data(),   pieces_.data(), first_.data(),
            partials_.data(), arrived_.data(), scale};
  }

 private:
  DeviceArray<DecodeSegment> segments_;
  DeviceArray<DecodeHead> heads_;
  DeviceArray<DecodePiece> pieces_;
  DeviceArray<int32_t> first_;
  DeviceArray<float> partials_;
  DeviceArray<int32_t> arrived_;
};

class DecodeCase {
 public:
  using Outputs = std::vector<std::vector<float>>;  // [heads][group * output_width]

  DecodeCase(const DecodeShape& shape, const RowFormat& format, Rng& rng);
  DecodeCase(const DecodeShape& shape, DType dtype, Rng& rng)
      : DecodeCase(shape, RowFormatOf(dtype), rng) {}
  // Plans anew for at most `more` rows beyond those that are there.
  void PlanFor(int32_t more);
  // Runs the plan, `times` launches, and returns the outputs.
  Outputs Run(int times = 1);
  // The same in parts.
  [[nodiscard]] DevicePlan Upload() const { return {plan_, segments_}; }
  void Launch(const DevicePlan& plan, StreamHandle stream) const;
  [[nodiscard]] Outputs Now() const;
  // Makes a row of a segment's values NaN.
  void BreakRow(int32_t segment, int64_t row);
  // One more row in every segment that grows and has room.
  void Append(StreamHandle stream);

  // The largest error in units of its bound; NaN counts as infinite.
  [[nodiscard]] double WorstError(const Outputs& outputs) const;
  [[nodiscard]] const DecodePlan& plan() const { return plan_; }
  [[nodiscard]] const std::vector<DecodeSegment>& segments() const { return segments_; }
  [[nodiscard]] int64_t Bytes() const;  // of keys and values

 private:
  struct Reference {
    std::vector<double> output, bound;  // [output_width]
  };
  void AddSegment(const SegmentSize& size, const RowFormat& format, Rng& rng);
  [[nodiscard]] Reference ReferenceOf(size_t head, int32_t query) const;
  [[nodiscard]] double Score(size_t head, int32_t query, int32_t segment, int64_t row) const;
  // What queries and weights are rounded to.
  [[nodiscard]] DType Rounding() const;

  float scale_ = 0.0F;
  std::deque<LatentCase> latents_;  // [heads]; empty where keys are as they are
  std::vector<std::vector<int32_t>> positions_;
  std::deque<DeviceArray<int32_t>> device_positions_;
  std::deque<EncodedRows> keys_, values_;
  std::deque<TestRows> queries_, outputs_;
  std::vector<DecodeSegment> segments_;
  std::vector<int32_t> rows_;  // of each segment, now
  std::deque<DeviceArray<int32_t>> live_;
  std::vector<int32_t> segment_first_ = {0};
  std::vector<DecodeHead> heads_;
  DecodePlan plan_;
};

inline void DecodeCase::AddSegment(const SegmentSize& size, const RowFormat& format, Rng& rng) {
  const int64_t room = size.rows + size.grows;
  keys_.emplace_back(rng, size.keys.value_or(format), room, size.rows, size.key_width, size.offset,
                     size.pad);
  values_.emplace_back(rng, size.values.value_or(format), room, size.rows, size.value_width,
                       size.offset, size.pad);
  rows_.push_back(static_cast<int32_t>(size.rows));
  live_.emplace_back(std::vector<int32_t>(1, rows_.back()));
  std::vector<int32_t> positions;
  for (int64_t row = 0; row < room; ++row) {
    positions.push_back(static_cast<int32_t>(rng.NextBelow(LatentCase::kPositions)));
  }
  // The last row of the rotation's tables, so that what reads behind it is seen.
  if (!positions.empty()) positions.front() = LatentCase::kPositions - 1;
  device_positions_.emplace_back(positions);
  positions_.push_back(positions);
  segments_.push_back({keys_.back().view(), values_.back().view(), static_cast<int32_t>(room),
                       size.grows > 0 ? live_.back().data() : nullptr, nullptr});
}

inline DecodeCase::DecodeCase(const DecodeShape& shape, const RowFormat& format, Rng& rng) {
  for (const auto& sizes : shape.heads) {
    DecodeHead head;
    head.query_width = shape.query_width == 0 ? 8 : shape.query_width;
    head.output_width = head.query_width;
    if (shape.latents.width > 0) {
      head.query_width = shape.latents.width;
      head.latents = latents_.emplace_back(shape.latents, rng).view();
    }
    for (const SegmentSize& size : sizes) {
      AddSegment(size, format, rng);
      if (shape.latents.width == 0) {
        head.query_width = std::max(head.query_width, segments_.back().keys.width);
      } else if (shape.positions) {
        segments_.back().positions = device_positions_.back().data();
      } else {
        for (int64_t r = 0; r < segments_.back().rows; ++r) {
          positions_.back()[r] = static_cast<int32_t>(r);
        }
      }
      head.output_width = std::max(head.output_width, segments_.back().values.width);
    }
    segment_first_.push_back(static_cast<int32_t>(segments_.size()));
    queries_.push_back(RandomRows(rng, DType::kF32, shape.group, head.query_width, 4));
    outputs_.push_back(RandomRows(rng, DType::kF32, shape.group, head.output_width, 3));
    head.queries = static_cast<const float*>(queries_.back().view().data);
    head.outputs = static_cast<float*>(outputs_.back().view().data);
    head.query_stride = static_cast<int32_t>(queries_.back().stride);
    head.output_stride = static_cast<int32_t>(outputs_.back().stride);
    head.group = shape.group;
    heads_.push_back(head);
  }
  scale_ = static_cast<float>(1.0 / std::sqrt(static_cast<double>(heads_[0].query_width)));
  plan_ = PlanDecode(segments_, segment_first_, heads_, shape.blocks);
}

inline void DecodeCase::PlanFor(int32_t more) {
  std::vector<DecodeSegment> segments = segments_;
  for (size_t s = 0; s < segments.size(); ++s) {
    segments[s].rows = std::min(segments[s].rows, rows_[s] + more);
  }
  plan_ = PlanDecode(segments, segment_first_, heads_, plan_.launch.blocks);
}

inline void DecodeCase::Launch(const DevicePlan& plan, StreamHandle stream) const {
  for (const TestRows& output : outputs_) {
    FillZero(output.view().data, output.values.size() * sizeof(float), stream);
  }
  DecodeAttention(plan.Arguments(scale_), plan_.launch, stream);
}

inline DecodeCase::Outputs DecodeCase::Now() const {
  Outputs outputs;
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

inline DecodeCase::Outputs DecodeCase::Run(int times) {
  const DevicePlan plan = Upload();
  for (int i = 0; i < times; ++i) Launch(plan, nullptr);
  return Now();
}

inline void DecodeCase::Append(StreamHandle stream) {
  for (size_t s = 0; s < segments_.size(); ++s) {
    if (segments_[s].live == nullptr || rows_[s] == segments_[s].rows) continue;
    keys_[s].Write(rows_[s], 1, stream);
    values_[s].Write(rows_[s], 1, stream);
    ++rows_[s];
    CopyToDevice(live_[s].data(), &rows_[s], sizeof(int32_t), stream);
  }
}

inline void DecodeCase::BreakRow(int32_t segment, int64_t row) { values_[segment].Break(row); }

inline DType DecodeCase::Rounding() const {
  switch (plan_.launch.reader) {
    case DecodeReader::kF16:
      return DType::kF16;
    case DecodeReader::kBF16:
      return DType::kBF16;
    default:
      return DType::kF32;
  }
}

inline double DecodeCase::Score(size_t head, int32_t query, int32_t segment, int64_t row) const {
  double score = 0.0;
  if (!latents_.empty()) {
    const LatentCase::Key key =
        latents_[head].KeyOf(segments_[segment].keys.width, positions_[segment][row],
                             [&](int32_t r) { return keys_[segment].at(row, r); });
    for (int32_t d = 0; d < heads_[head].query_width; ++d) {
      score += queries_[head].at(query, d) * key.value[d];
    }
    return score * static_cast<double>(scale_);
  }
  for (int64_t d = 0; d < segments_[segment].keys.width; ++d) {
    auto q = static_cast<float>(queries_[head].at(query, d));
    std::byte rounded[4];
    ConvertFromFloat(&q, 1, Rounding(), rounded);
    ConvertToFloat(Rounding(), rounded, 1, &q);
    score += static_cast<double>(q) * keys_[segment].at(row, d);
  }
  return score * static_cast<double>(scale_);
}

// Weights are rounded to the dtype on tensor cores (not their sum). Scores, of size 10 at most, and
// sums are in float: a relative error of each weight of 2^-16 holds for widths up to 128, of 2^-14
// where keys are sums of two bf16 numbers before and behind their products with a latent.
inline DecodeCase::Reference DecodeCase::ReferenceOf(size_t head, int32_t query) const {
  const int32_t width = heads_[head].output_width;
  Reference result = {std::vector<double>(width, 0.0), std::vector<double>(width, 0.0)};
  std::vector<double> scores;
  for (int32_t s = segment_first_[head]; s < segment_first_[head + 1]; ++s) {
    for (int64_t r = 0; r < rows_[s]; ++r) scores.push_back(Score(head, query, s, r));
  }
  if (scores.empty()) return result;
  const double peak = *std::max_element(scores.begin(), scores.end());
  // Small weights of f16 are rounded to multiples of 2^-24.
  const double small = Rounding() == DType::kF16 ? 0x1p-25 : 0.0;
  double sum = 0.0;
  size_t next = 0;
  for (int32_t s = segment_first_[head]; s < segment_first_[head + 1]; ++s) {
    for (int64_t r = 0; r < rows_[s]; ++r) {
      const double weight = std::exp(scores[next++] - peak);
      sum += weight;
      for (int32_t d = 0; d < segments_[s].values.width; ++d) {
        result.output[d] += weight * values_[s].at(r, d);
        result.bound[d] += (weight + small) * std::abs(values_[s].at(r, d));
      }
    }
  }
  const double unit = (Rounding() == DType::kF32 ? 0.0 : UnitOf(Rounding())) +
                      (latents_.empty() ? 0x1p-16 : 0x1p-14);
  for (int32_t d = 0; d < width; ++d) {
    result.output[d] /= sum;
    result.bound[d] *= unit / sum;
  }
  return result;
}

inline double DecodeCase::WorstError(const Outputs& outputs) const {
  double worst = 0.0;
  for (size_t h = 0; h < heads_.size(); ++h) {
    const DecodeHead& head = heads_[h];
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
  for (size_t s = 0; s < segments_.size(); ++s) {
    bytes += rows_[s] * (keys_[s].RowSize() + values_[s].RowSize());
  }
  return bytes;
}

}  // namespace kvc::cuda
