#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "kernels/matmul.h"

namespace kvc::kernels {
namespace {

// Row `row` of a block as floats.
void LoadRow(const RowBlock& block, int64_t row, float* target) {
  const auto* bytes = static_cast<const char*>(block.data);
  ConvertToFloat(
      block.dtype, bytes + row * block.stride * DTypeBytes(block.dtype), block.width, target);
}

void RebuildRow(const float* latent, int32_t position, const KeyRebuild& rebuild, float* key) {
  const int64_t width = rebuild.rebuild.rows;
  float squares = 0.0F;
  for (int64_t d = 0; d < width; ++d) {
    float sum = rebuild.bias == nullptr ? 0.0F : rebuild.bias[d];
    for (int64_t r = 0; r < rebuild.rebuild.cols; ++r) {
      sum += latent[r] * rebuild.rebuild(d, r);
    }
    key[d] = sum;
    squares += sum * sum;
  }
  if (rebuild.norm_weight != nullptr) {
    const float scale =
        1.0F / std::sqrt(squares / static_cast<float>(width) + rebuild.norm_epsilon);
    for (int64_t d = 0; d < width; ++d) {
      key[d] *= scale * rebuild.norm_weight[d];
    }
  }
  const int64_t half = width / 2;
  for (int64_t j = 0; j < half; ++j) {
    const float low = key[j];
    const float high = key[j + half];
    const float c = rebuild.cos(position, j);
    const float s = rebuild.sin(position, j);
    key[j] = low * c - high * s;
    key[j + half] = high * c + low * s;
  }
}

// keys [rows, D] of a segment
std::vector<float> LoadKeys(const RowBlock& block,
                            const int32_t* positions,
                            const KeyRebuild* rebuild) {
  const int64_t width = rebuild == nullptr ? block.width : rebuild->rebuild.rows;
  std::vector<float> keys(static_cast<size_t>(block.rows * width));
  std::vector<float> latent(static_cast<size_t>(block.width));
  for (int64_t row = 0; row < block.rows; ++row) {
    float* key = keys.data() + row * width;
    if (rebuild == nullptr) {
      LoadRow(block, row, key);
    } else {
      LoadRow(block, row, latent.data());
      RebuildRow(latent.data(), positions[row], *rebuild, key);
    }
  }
  return keys;
}

void DecodeOneHead(const DecodeHead& head, float scale) {
  int64_t rows = 0;
  for (const Segment& segment : head.segments) {
    rows += segment.keys.rows;
  }
  KVC_CHECK(rows > 0, kBadShape, "attention: expected at least one cached row, got none");
  const int64_t value_width = head.outputs.cols;
  std::vector<float> scores(static_cast<size_t>(head.queries.rows * rows));
  std::vector<float> values(static_cast<size_t>(rows * value_width));
  const MatrixF all_scores(scores.data(), head.queries.rows, rows);
  int64_t first = 0;
  for (const Segment& segment : head.segments) {
    const std::vector<float> keys = LoadKeys(segment.keys, segment.positions, head.rebuild);
    const ConstMatrixF key_view(keys.data(), segment.keys.rows, head.queries.cols);
    GemmNT(scale, head.queries, key_view, false, all_scores.ColRange(first, segment.keys.rows));
    for (int64_t row = 0; row < segment.values.rows; ++row) {
      LoadRow(segment.values, row, values.data() + (first + row) * value_width);
    }
    first += segment.keys.rows;
  }
  for (int64_t q = 0; q < head.queries.rows; ++q) {
    float* row = all_scores.row(q);
    const float largest = *std::max_element(row, row + rows);
    float sum = 0.0F;
    for (int64_t c = 0; c < rows; ++c) {
      row[c] = std::exp(row[c] - largest);
      sum += row[c];
    }
    for (int64_t c = 0; c < rows; ++c) {
      row[c] /= sum;
    }
  }
  GemmNN(all_scores, ConstMatrixF(values.data(), rows, value_width), false, head.outputs);
}

void PrefillOneHead(const PrefillHead& head, int64_t first, float scale) {
  std::vector<int32_t> positions(static_cast<size_t>(head.keys.rows));
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<float> keys = LoadKeys(head.keys, positions.data(), head.rebuild);
  std::vector<float> values(static_cast<size_t>(head.values.rows * head.values.width));
  for (int64_t row = 0; row < head.values.rows; ++row) {
    LoadRow(head.values, row, values.data() + row * head.values.width);
  }
  const int64_t rows = head.keys.rows;
  for (size_t h = 0; h < head.queries.size(); ++h) {
    const ConstMatrixF& queries = head.queries[h];
    std::vector<float> scores(static_cast<size_t>(queries.rows * rows));
    const MatrixF score_view(scores.data(), queries.rows, rows);
    GemmNT(scale, queries, ConstMatrixF(keys.data(), rows, queries.cols), false, score_view);
    for (int64_t t = 0; t < queries.rows; ++t) {
      float* row = score_view.row(t);
      const int64_t seen = first + t + 1;
      const float largest = *std::max_element(row, row + seen);
      float sum = 0.0F;
      for (int64_t c = 0; c < seen; ++c) {
        row[c] = std::exp(row[c] - largest);
        sum += row[c];
      }
      for (int64_t c = 0; c < rows; ++c) {
        row[c] = c < seen ? row[c] / sum : 0.0F;
      }
    }
    GemmNN(
        score_view, ConstMatrixF(values.data(), rows, head.values.width), false, head.outputs[h]);
  }
}

}  // namespace

void DecodeAttention(std::span<const DecodeHead> heads, float scale, ThreadPool& pool) {
  pool.ParallelFor(static_cast<int64_t>(heads.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      DecodeOneHead(heads[static_cast<size_t>(h)], scale);
    }
  });
}

void PrefillAttention(std::span<const PrefillHead> heads,
                      int64_t first,
                      float scale,
                      ThreadPool& pool) {
  pool.ParallelFor(static_cast<int64_t>(heads.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      PrefillOneHead(heads[static_cast<size_t>(h)], first, scale);
    }
  });
}

void RebuildKeys(const RowBlock& latents,
                 std::span<const int32_t> positions,
                 const KeyRebuild& rebuild,
                 MatrixF keys) {
  std::vector<float> latent(static_cast<size_t>(latents.width));
  for (int64_t row = 0; row < latents.rows; ++row) {
    LoadRow(latents, row, latent.data());
    RebuildRow(latent.data(), positions[static_cast<size_t>(row)], rebuild, keys.row(row));
  }
}

}  // namespace kvc::kernels
