#pragma once
// A chunk of random queries over cached rows on the device, what prefill attention makes of it, and
// the reference in double.

#include <algorithm>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/prefill_attention.h"
#include "tests/cuda/encoded_rows.h"
#include "tests/cuda/latent_case.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {

struct PrefillWidths {
  int32_t key, value;
};
struct PrefillShape {
  std::string name;
  int32_t tokens, first, group, window;
  std::vector<PrefillWidths> heads;
  int64_t pad = 0;      // bytes between rows
  int64_t ahead = 0;    // bytes before the first row
  int32_t unseen = 0;   // rows of NaN behind the last
  int32_t dropped = 0;  // first rows that are NaN
  int32_t splits = 1;
  LatentShape latents = {};  // key widths are then of latents
};

class PrefillCase {
 public:
  PrefillCase(const PrefillShape& shape, const RowFormat& keys, const RowFormat& values, Rng& rng);
  // Runs the chunk in pieces of `step` tokens and returns the outputs [tokens, all heads' D_v].
  [[nodiscard]] std::vector<float> Run(int32_t step = std::numeric_limits<int32_t>::max()) const;
  // The largest error of Run's outputs in units of its bound; NaN counts as infinite.
  [[nodiscard]] double WorstError(const std::vector<float>& outputs) const;
  [[nodiscard]] RowCode multiplied_as() const { return plan_.rows; }

 private:
  struct Reference {
    std::vector<double> output, bound;  // [D_v]
  };
  [[nodiscard]] Reference ReferenceOf(size_t head, int32_t query_head, int32_t token) const;
  [[nodiscard]] std::vector<double> Scores(size_t head, int32_t query_head, int32_t token) const;
  [[nodiscard]] DType multiplied() const {
    return plan_.rows == RowCode::kBF16  ? DType::kBF16
           : plan_.rows == RowCode::kF16 ? DType::kF16
                                         : DType::kF32;
  }
  [[nodiscard]] int32_t FirstVisible(int32_t token) const {
    return shape_.window == 0 ? 0 : std::max(0, shape_.first + token - shape_.window + 1);
  }

  [[nodiscard]] int32_t QueryWidth(size_t head) const {
    return shape_.latents.width > 0 ? shape_.latents.width : shape_.heads[head].key;
  }

  PrefillShape shape_;
  float scale_;
  std::deque<LatentCase> latents_;  // [heads]; empty where keys are as they are
  std::deque<EncodedRows> keys_, values_;
  std::deque<TestRows> queries_;  // [tokens, all heads' D_k]
  std::vector<int64_t> query_first_ = {0};
  std::vector<int64_t> output_first_ = {0};
  PrefillPlan plan_;
};

inline PrefillCase::PrefillCase(const PrefillShape& shape,
                                const RowFormat& keys,
                                const RowFormat& values,
                                Rng& rng)
    : shape_(shape),
      scale_(static_cast<float>(1.0 / std::sqrt(static_cast<double>(QueryWidth(0))))) {
  std::vector<PrefillHead> heads;
  for (const PrefillWidths& widths : shape.heads) {
    const int64_t rows = shape.first + shape.tokens + shape.unseen;
    keys_.emplace_back(rng, keys, rows, rows, widths.key, shape.ahead, shape.pad);
    values_.emplace_back(rng, values, rows, rows, widths.value, shape.ahead, shape.pad);
    for (int64_t row = 0; row < rows; ++row) {
      if (row < shape.dropped || row >= shape.first + shape.tokens) {
        keys_.back().Break(row);
        values_.back().Break(row);
      }
    }
    query_first_.push_back(query_first_.back() + shape.group * QueryWidth(heads.size()));
    output_first_.push_back(output_first_.back() + shape.group * widths.value);
    PrefillHead head;
    head.keys = keys_.back().view();
    head.values = values_.back().view();
    if (shape.latents.width > 0) head.latents = latents_.emplace_back(shape.latents, rng).view();
    heads.push_back(head);
  }
  plan_ = PlanPrefill(heads);
  queries_.push_back(RandomRows(rng, DType::kF32, shape.tokens, query_first_.back(), 3));
}

inline std::vector<float> PrefillCase::Run(int32_t step) const {
  const TestRows& queries = queries_.front();
  const int64_t output_width = output_first_.back();
  bool returned = true;  // every counter to zero
  // One column more, which nobody may write.
  const DeviceArray<float> outputs(
      std::vector<float>(static_cast<size_t>(shape_.tokens * (output_width + 1)), 7.0F));
  for (int32_t from = 0; from < shape_.tokens; from += std::min(step, shape_.tokens - from)) {
    std::vector<PrefillHead> heads;
    for (size_t h = 0; h < shape_.heads.size(); ++h) {
      PrefillHead head;
      head.keys = keys_[h].view();
      head.values = values_[h].view();
      head.queries =
          static_cast<const float*>(queries.view().data) + from * queries.stride + query_first_[h];
      head.outputs = outputs.data() + from * (output_width + 1) + output_first_[h];
      head.query_head_stride = QueryWidth(h);
      if (!latents_.empty()) head.latents = latents_[h].view();
      head.output_head_stride = shape_.heads[h].value;
      heads.push_back(head);
    }
    PrefillChunk chunk;
    chunk.tokens = std::min(step, shape_.tokens - from);
    chunk.first = shape_.first + from;
    chunk.group = shape_.group;
    chunk.window = shape_.window;
    chunk.scale = scale_;
    chunk.query_stride = queries.stride;
    chunk.output_stride = output_width + 1;
    chunk.splits = shape_.splits;
    const DeviceArray<PrefillHead> table(heads);
    const PrefillRoomSize size = PrefillRoomOf(plan_, chunk);
    const DeviceArray<float> partials(static_cast<size_t>(size.floats));
    const DeviceArray<int32_t> arrived(std::vector<int32_t>(static_cast<size_t>(size.counters)));
    for (int i = 0; i < (shape_.splits == 1 ? 1 : 2); ++i) {
      PrefillAttention(table.data(), plan_, chunk, {partials.data(), arrived.data()}, nullptr);
    }
    Synchronize(nullptr);
    for (const int32_t count : arrived.Host()) returned = returned && count == 0;
  }
  const std::vector<float> rows = outputs.Host();
  std::vector<float> result;
  for (int32_t t = 0; t < shape_.tokens; ++t) {
    const auto row = rows.begin() + t * (output_width + 1);
    result.insert(result.end(), row, row + output_width);
    if (row[output_width] != 7.0F) {
      result.back() = std::numeric_limits<float>::quiet_NaN();
    }
  }
  // Counters return to zero, or the next launch would wait for nobody.
  if (!returned) result.back() = std::numeric_limits<float>::quiet_NaN();
  return result;
}

// Of the rows that the token sees.
inline std::vector<double> PrefillCase::Scores(size_t head,
                                               int32_t query_head,
                                               int32_t token) const {
  const int32_t width = QueryWidth(head);
  std::vector<float> query(static_cast<size_t>(width));
  for (int32_t d = 0; d < width; ++d) {
    query[d] =
        static_cast<float>(queries_.front().at(token, query_first_[head] + query_head * width + d));
  }
  if (latents_.empty()) {
    // The kernel rounds queries to the type that they are multiplied in.
    std::vector<std::byte> rounded(query.size() * sizeof(float));
    ConvertFromFloat(query.data(), width, multiplied(), rounded.data());
    ConvertToFloat(multiplied(), rounded.data(), width, query.data());
  }
  std::vector<double> scores;
  for (int32_t row = FirstVisible(token); row <= shape_.first + token; ++row) {
    double score = 0.0;
    LatentCase::Key key;
    if (!latents_.empty()) {
      key = latents_[head].KeyOf(shape_.heads[head].key, row,
                                 [&](int32_t r) { return keys_[head].at(row, r); });
    }
    for (int32_t d = 0; d < width; ++d) {
      score += static_cast<double>(query[d]) *
               (latents_.empty() ? keys_[head].at(row, d) : key.value[d]);
    }
    scores.push_back(score * static_cast<double>(scale_));
  }
  return scores;
}

// Bounds as in decode_case.h: weights are rounded to the type on tensor cores (not their sum), to
// multiples of 2^-24 if they are small and the type is f16; scores and sums are in float.
inline PrefillCase::Reference PrefillCase::ReferenceOf(size_t head,
                                                       int32_t query_head,
                                                       int32_t token) const {
  const int32_t width = shape_.heads[head].value;
  Reference result = {std::vector<double>(width, 0.0), std::vector<double>(width, 0.0)};
  const std::vector<double> scores = Scores(head, query_head, token);
  const double peak = *std::max_element(scores.begin(), scores.end());
  const double small = multiplied() == DType::kF16 ? 0x1p-25 : 0.0;
  double sum = 0.0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double weight = std::exp(scores[i] - peak);
    sum += weight;
    for (int32_t d = 0; d < width; ++d) {
      const double value = values_[head].at(FirstVisible(token) + static_cast<int64_t>(i), d);
      result.output[d] += weight * value;
      result.bound[d] += (weight + small) * std::abs(value);
    }
  }
  const double unit = (multiplied() == DType::kF32 ? 0.0 : UnitOf(multiplied())) +
                      (latents_.empty() ? 0x1p-16 : 0x1p-14);
  for (int32_t d = 0; d < width; ++d) {
    result.output[d] /= sum;
    result.bound[d] *= unit / sum;
  }
  return result;
}

inline double PrefillCase::WorstError(const std::vector<float>& outputs) const {
  double worst = 0.0;
  for (int32_t token = 0; token < shape_.tokens; ++token) {
    for (size_t h = 0; h < shape_.heads.size(); ++h) {
      for (int32_t g = 0; g < shape_.group; ++g) {
        const Reference reference = ReferenceOf(h, g, token);
        const int32_t width = shape_.heads[h].value;
        const int64_t first = token * output_first_.back() + output_first_[h] + g * width;
        for (int32_t d = 0; d < width; ++d) {
          const double got = outputs[static_cast<size_t>(first + d)];
          const double error = std::abs(got - reference.output[d]);
          if (!(error <= worst * reference.bound[d])) {
            worst = std::isnan(error) || reference.bound[d] == 0.0 ? INFINITY
                                                                   : error / reference.bound[d];
          }
        }
      }
    }
  }
  return worst;
}

}  // namespace kvc::cuda
