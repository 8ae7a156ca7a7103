#pragma once
// Random inputs of a scorer, in float for it and in double for the reference.

#include <vector>

#include "core/base/rng.h"
#include "scorers/scorer.h"
#include "tests/reference/scorer_reference.h"

namespace kvc::scorers {

// Owns what a HeadInput borrows.
struct RandomHead {
  std::vector<float> keys, values;                     // [T, D_k], [T, D]
  std::vector<std::vector<float>> queries, prompts;    // [head][W, D_k], [head][T', D_k]
  std::vector<std::vector<float>> projections, grams;  // [head][E, D], [head][D, D]
  std::vector<double> frequencies;
  HeadInput input;
};

struct RandomHeadSizes {
  int64_t tokens = 100;
  int64_t key_width = 16;
  int64_t value_width = 24;
  int64_t heads = 3;
  int64_t window = 8;
  int64_t model_width = 31;
  bool rope = true;
};

inline std::vector<float> RandomFloats(Rng& rng, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(rng.NextNormal());
  return values;
}

// Output projections with a spread of directions, and M_h = W_O^hT W_O^h of each.
inline void AddProjections(Rng& rng, const RandomHeadSizes& sizes, RandomHead& head) {
  const int64_t width = sizes.value_width;
  for (int64_t h = 0; h < sizes.heads; ++h) {
    head.projections.push_back(RandomFloats(rng, sizes.model_width * width));
    std::vector<float>& projection = head.projections.back();
    for (int64_t i = 0; i < std::ssize(projection); ++i) {
      projection[i] *= 0.05F * static_cast<float>(1 + i % width);
    }
    std::vector<float> gram(static_cast<size_t>(width * width));
    for (int64_t a = 0; a < width; ++a) {
      for (int64_t b = 0; b < width; ++b) {
        double sum = 0.0;
        for (int64_t e = 0; e < sizes.model_width; ++e) {
          sum += static_cast<double>(projection[e * width + a]) * projection[e * width + b];
        }
        gram[a * width + b] = static_cast<float>(sum);
      }
    }
    head.grams.push_back(std::move(gram));
  }
  for (const auto& gram : head.grams)
    head.input.output_grams.emplace_back(gram.data(), width, width);
  head.input.residual_energy = 7.5;
}

inline RandomHead MakeRandomHead(uint64_t seed, const RandomHeadSizes& sizes) {
  Rng rng(seed);
  RandomHead head;
  head.keys = RandomFloats(rng, sizes.tokens * sizes.key_width);
  head.values = RandomFloats(rng, sizes.tokens * sizes.value_width);
  for (int64_t h = 0; h < sizes.heads; ++h) {
    head.queries.push_back(RandomFloats(rng, sizes.window * sizes.key_width));
    head.prompts.push_back(RandomFloats(rng, sizes.tokens * sizes.key_width));
    // A mean that differs from head to head, as real queries have.
    for (float& q : head.prompts.back()) q = 0.5F * q + 0.3F * static_cast<float>(h + 1);
  }
  for (int64_t d = 0; sizes.rope && d < sizes.key_width / 2; ++d) {
    head.frequencies.push_back(
        std::pow(10000.0, -2.0 * static_cast<double>(d) / static_cast<double>(sizes.key_width)));
  }
  head.input.keys = {head.keys.data(), sizes.tokens, sizes.key_width};
  head.input.values = {head.values.data(), sizes.tokens, sizes.value_width};
  for (int64_t h = 0; h < sizes.heads; ++h) {
    head.input.queries.push_back({head.queries[h].data(), sizes.window, sizes.key_width});
    head.input.prompt_queries.push_back({head.prompts[h].data(), sizes.tokens, sizes.key_width});
  }
  AddProjections(rng, sizes, head);
  head.input.rope_frequencies = head.frequencies;
  head.input.scale = 1.0 / std::sqrt(static_cast<double>(sizes.value_width));
  return head;
}

inline reference::Rows ToRows(ConstMatrixF matrix) {
  reference::Rows rows;
  for (int64_t r = 0; r < matrix.rows; ++r) {
    rows.emplace_back(matrix.row(r), matrix.row(r) + matrix.cols);
  }
  return rows;
}

inline std::vector<reference::Rows> ToRows(const std::vector<ConstMatrixF>& matrices) {
  std::vector<reference::Rows> all;
  for (const ConstMatrixF& matrix : matrices) all.push_back(ToRows(matrix));
  return all;
}

inline std::vector<float> ScoreOf(ScorerKind kind,
                                  const HeadInput& input,
                                  const ScorerOptions& options = {}) {
  std::vector<float> scores(static_cast<size_t>(input.keys.rows), -77.0F);
  Scorer::Create({kind, options})->Score(input, scores);
  return scores;
}

}  // namespace kvc::scorers
