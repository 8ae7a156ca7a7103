#include "runtime/scoring.h"

#include <algorithm>
#include <utility>

#include "core/dtype.h"
#include "kernels/attention.h"

namespace kvc::runtime {
namespace {

// A float matrix that borrows where the cache is float already.
struct FloatRows {
  std::vector<float> storage;
  ConstMatrixF view;
};

// Rows of the blocks one after the other, as float.
FloatRows Gather(const std::vector<kernels::RowBlock>& blocks) {
  FloatRows rows;
  const int64_t width = blocks.front().width;
  if (blocks.size() == 1 && blocks[0].dtype == DType::kF32) {
    rows.view = {static_cast<const float*>(blocks[0].data), blocks[0].rows, width};
    return rows;
  }
  int64_t count = 0;
  for (const auto& block : blocks) count += block.rows;
  rows.storage.resize(static_cast<size_t>(count * width));
  float* target = rows.storage.data();
  for (const auto& block : blocks) {
    ConvertToFloat(block.dtype, block.data, block.rows * width, target);
    target += block.rows * width;
  }
  rows.view = {rows.storage.data(), count, width};
  return rows;
}

FloatRows RebuildKeys(const std::vector<const CacheBlock*>& blocks,
                      const kernels::KeyRebuild& rebuild) {
  FloatRows rows;
  int64_t count = 0;
  for (const CacheBlock* block : blocks) count += block->rows();
  const int64_t width = rebuild.rebuild.rows;
  rows.storage.resize(static_cast<size_t>(count * width));
  MatrixF all(rows.storage.data(), count, width);
  int64_t first = 0;
  for (const CacheBlock* block : blocks) {
    kernels::RebuildKeys(
        block->keys(), block->positions(), rebuild, all.RowRange(first, block->rows()));
    first += block->rows();
  }
  rows.view = all;
  return rows;
}

// Turns the rows of x, queries of positions first, first + 1, ..., back by their rotation.
void Unrotate(MatrixF x, int64_t first, ConstMatrixF cos, ConstMatrixF sin) {
  const int64_t half = x.cols / 2;
  for (int64_t t = 0; t < x.rows; ++t) {
    const float* c = cos.row(first + t);
    const float* s = sin.row(first + t);
    float* row = x.row(t);
    for (int64_t j = 0; j < half; ++j) {
      const float a = row[j];
      const float b = row[j + half];
      row[j] = a * c[j] + b * s[j];
      row[j + half] = b * c[j] - a * s[j];
    }
  }
}

class HeadScorer {
 public:
  HeadScorer(const LayerScoring& scoring, const SequenceCache& cache)
      : scoring_(scoring), cache_(cache), layer_(cache.layer(scoring.attention->layer)) {}

  // Scores of kv head `head`, plane `plane` of its group.
  std::vector<float> Score(const GroupCache& group, int64_t head, int64_t plane) const {
    std::vector<const CacheBlock*> blocks;
    for (const CacheBlock& tier : group.tiers) {
      if (tier.rows() > 0) blocks.push_back(&tier);
    }
    if (group.recent.rows() > 0 || blocks.empty()) blocks.push_back(&group.recent);
    std::vector<kernels::RowBlock> key_blocks;
    std::vector<kernels::RowBlock> value_blocks;
    for (const CacheBlock* block : blocks) {
      key_blocks.push_back(block->keys());
      value_blocks.push_back(block->values(plane));
    }
    const AttentionStep& attention = *scoring_.attention;
    const FloatRows keys =
        attention.latent ? RebuildKeys(blocks, attention.rebuild[head]) : Gather(key_blocks);
    const FloatRows values = Gather(value_blocks);
    scorers::HeadInput input;
    input.keys = keys.view;
    input.values = values.view;
    input.scale = attention.scale;
    input.sinks = cache_.spec().sinks;
    input.rope_frequencies = scoring_.rope_frequencies;
    std::vector<std::vector<float>> storage;  // what the query views point into
    AddQueries(head, keys.view.rows, input, storage);
    if (scoring_.scorer->needs_output()) {
      const size_t group_size = input.queries.size();
      const auto grams = scoring_.output_grams.subspan(head * group_size, group_size);
      input.output_grams.assign(grams.begin(), grams.end());
      input.residual_energy = layer_.residual_energy;
    }
    std::vector<float> scores(static_cast<size_t>(keys.view.rows));
    scoring_.scorer->Score(input, scores);
    return scores;
  }

 private:
  void AddQueries(int64_t head,
                  int64_t rows,
                  scorers::HeadInput& input,
                  std::vector<std::vector<float>>& storage) const {
    const AttentionStep& attention = *scoring_.attention;
    const int64_t group_size = attention.num_heads / attention.num_kv_heads;
    storage.reserve(static_cast<size_t>(2 * group_size));
    for (int64_t h = head * group_size; h < (head + 1) * group_size; ++h) {
      if (scoring_.scorer->needs_queries()) {
        const int64_t window = cache_.spec().window;
        const int64_t count = layer_.queries.count();
        input.queries.push_back(FromRing(h, window > 0 ? std::min(window, count) : count, storage));
      }
      if (!scoring_.scorer->needs_prompt_queries()) continue;
      MatrixF queries = scoring_.prompt_queries.rows > 0
                            ? FromPrompt(h, storage)
                            : FromRing(h, layer_.queries.count(), storage);
      // Scorers count positions in rows; where tokens are missing the rotation is taken back only
      // as far as that count has come.
      if (scoring_.cos.rows > 0) {
        Unrotate(queries, rows - queries.rows, scoring_.cos, scoring_.sin);
      }
      input.prompt_queries.push_back(queries);
    }
  }

  MatrixF FromRing(int64_t h, int64_t count, std::vector<std::vector<float>>& storage) const {
    const int64_t width = layer_.queries.width(h);
    std::vector<float>& data = storage.emplace_back(static_cast<size_t>(count * width));
    const MatrixF queries(data.data(), count, width);
    layer_.queries.Copy(h, queries);
    return queries;
  }

  MatrixF FromPrompt(int64_t h, std::vector<std::vector<float>>& storage) const {
    const ConstMatrixF all = scoring_.prompt_queries;
    const int64_t stored = all.cols / scoring_.attention->num_heads;
    const int64_t width = layer_.queries.width(h);
    std::vector<float>& data = storage.emplace_back(static_cast<size_t>(all.rows * width));
    const MatrixF queries(data.data(), all.rows, width);
    for (int64_t t = 0; t < all.rows; ++t) {
      std::copy_n(all.row(t) + h * stored, width, queries.row(t));
    }
    return queries;
  }

  const LayerScoring& scoring_;
  const SequenceCache& cache_;
  const LayerCache& layer_;
};

}  // namespace

double ResidualEnergy(ConstMatrixF hidden, int64_t window) {
  const int64_t count = std::min(window, hidden.rows);
  const ConstMatrixF rows = hidden.RowRange(hidden.rows - count, count);
  double sum = 0.0;
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t e = 0; e < rows.cols; ++e) sum += static_cast<double>(rows(t, e)) * rows(t, e);
  }
  return sum / static_cast<double>(count);
}

std::vector<std::vector<float>> ScoreLayer(const LayerScoring& scoring,
                                           const SequenceCache& cache) {
  const int64_t layer = scoring.attention->layer;
  const auto& groups = cache.spec().layers[layer];
  struct Head {
    size_t group;
    int64_t head;
    int64_t plane;
  };
  std::vector<Head> heads;
  std::vector<std::vector<std::vector<float>>> head_scores(groups.size());
  for (size_t n = 0; n < groups.size(); ++n) {
    head_scores[n].resize(groups[n].heads.size());
    for (size_t plane = 0; plane < groups[n].heads.size(); ++plane) {
      heads.push_back({n, groups[n].heads[plane], static_cast<int64_t>(plane)});
    }
  }
  const HeadScorer scorer(scoring, cache);
  const LayerCache& layer_cache = cache.layer(layer);
  scoring.pool->ParallelFor(static_cast<int64_t>(heads.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Head& head = heads[i];
      head_scores[head.group][head.plane] =
          scorer.Score(layer_cache.groups[head.group], head.head, head.plane);
    }
  });
  std::vector<std::vector<float>> scores;
  for (size_t n = 0; n < groups.size(); ++n) {
    std::vector<float>& combined = scores.emplace_back(head_scores[n].front().size());
    scorers::CombineHeads(*scoring.scorer, head_scores[n], combined);
  }
  return scores;
}

}  // namespace kvc::runtime
