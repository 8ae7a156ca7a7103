#include "runtime/cpu/scoring.h"

#include <algorithm>
#include <utility>

#include "core/base/row_format.h"
#include "kernels/attention.h"
#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/head_basis.h"
#include "runtime/cpu/scored_rows.h"
#include "scorers/tier_loss.h"

namespace kvc::runtime {
namespace {

class HeadScorer {
 public:
  HeadScorer(const LayerScoring& scoring, const CacheSpec& spec, const LayerCache& layer)
      : scoring_(scoring), spec_(spec), layer_(layer) {}

  // Finds scores of kv head `head`, plane `plane` of group n, or its losses with narrow tiers.
  enum class Part { kScores, kLosses };
  void Find(Part part, int64_t n, int64_t head, int64_t plane, GroupScores& result) const {
    const std::vector<const CacheBlock*> blocks = BlocksOf(layer_.groups[n]);
    const FloatRows keys = GatherKeys(blocks, head);
    const FloatRows values = GatherValues(blocks, head, plane);
    scorers::HeadInput input;
    input.keys = keys.view;
    input.values = values.view;
    input.scale = scoring_.attention->scale;
    input.sinks = spec_.sinks;
    input.rope_frequencies = scoring_.rotation.frequencies;
    input.rotary_width = 2 * std::ssize(input.rope_frequencies);
    input.rope_factor = scoring_.rotation.factor;
    if (spec_.key_format == kRowsBF16 && spec_.value_format == kRowsBF16) {
      input.rounding = scoring_.rounding;
    }
    std::vector<std::vector<float>> storage;  // what the query views point into
    AddQueries(part, head, keys.view.rows, input, storage);
    if (!scoring_.output_grams.empty()) {
      const size_t group_size = input.queries.size();
      const auto grams = scoring_.output_grams.subspan(head * group_size, group_size);
      input.output_grams.assign(grams.begin(), grams.end());
      input.residual_energy = layer_.residual_energy;
    }
    if (part == Part::kScores) {
      result.scores.resize(static_cast<size_t>(keys.view.rows));
      scoring_.scorer->Score(input, result.scores);
    } else {
      AddLosses(n, head, blocks, input, result);
    }
  }

 private:
  static std::vector<const CacheBlock*> BlocksOf(const GroupCache& group) {
    std::vector<const CacheBlock*> blocks;
    for (const CacheBlock& tier : group.tiers) {
      if (tier.rows() > 0) blocks.push_back(&tier);
    }
    if (group.recent.rows() > 0 || blocks.empty()) blocks.push_back(&group.recent);
    return blocks;
  }

  [[nodiscard]] FloatRows GatherKeys(const std::vector<const CacheBlock*>& blocks,
                                     int64_t head) const {
    const AttentionStep& attention = *scoring_.attention;
    if (attention.latent) {
      return RebuildKeys(blocks, Rebuild(head));
    }
    std::vector<kernels::RowBlock> rows;
    for (const CacheBlock* block : blocks) rows.push_back(KeysOf(*block));
    return layer_.in_coordinates() ? Restore(rows, KeyBasis(*layer_.coordinates, head))
                                   : Gather(rows);
  }

  // The rebuild of a head's latents as they lie in the blocks.
  [[nodiscard]] const kernels::KeyRebuild& Rebuild(int64_t head) const {
    return (layer_.in_coordinates() ? scoring_.from_coordinates : scoring_.rebuild)[head];
  }

  // Keys from what a tier keeps of latents.
  [[nodiscard]] FloatRows ApproximateLatents(const std::vector<const CacheBlock*>& blocks,
                                             int64_t head,
                                             int64_t width,
                                             const RowFormat* format,
                                             CodeSteps steps) const {
    const KeptLatents kept = {width, format, steps};
    const HeadBasis basis =
        layer_.in_coordinates() ? HeadBasis() : KeyBasis(*layer_.coordinates, head);
    return RebuildKeys(blocks, scoring_.from_coordinates[head], kept, basis);
  }

  FloatRows GatherValues(const std::vector<const CacheBlock*>& blocks,
                         int64_t head,
                         int64_t plane) const {
    std::vector<kernels::RowBlock> rows;
    for (const CacheBlock* block : blocks) rows.push_back(ValuesOf(*block, plane));
    return layer_.in_coordinates() ? Restore(rows, ValueBasis(*layer_.coordinates, head))
                                   : Gather(rows);
  }

  // What tiers keep of a head's rows; tiers that keep as much share it.
  struct KeptRows {
    int64_t width = 0;
    RowFormat format;
    FloatRows rows;
  };
  template <class Make>
  static ConstMatrixF Once(int64_t width,
                           const RowFormat& format,
                           std::vector<KeptRows>& known,
                           const Make& make) {
    for (const KeptRows& kept : known) {
      if (kept.width == width && kept.format == format) return kept.rows.view;
    }
    return known.emplace_back(KeptRows{width, format, make()}).rows.view;
  }

  // The tier's format where its rounding counts as a loss: where it is coarser than the cache's, or
  // scales are found anew. Null: what is lost by fewer dimensions says it all.
  static const RowFormat* Rounding(const RowFormat& tier, const RowFormat& cache) {
    return tier != cache || tier.scales != RowScales::kNone ? &tier : nullptr;
  }

  [[nodiscard]] CodeSteps KeyStepsOf(const RowFormat& format, int64_t head) const {
    const LayerBases* bases = layer_.coordinates->calibrated();
    return bases != nullptr ? KeySteps(*bases, format, head) : CodeSteps();
  }

  [[nodiscard]] CodeSteps ValueStepsOf(const RowFormat& format, int64_t head) const {
    const LayerBases* bases = layer_.coordinates->calibrated();
    return bases != nullptr ? ValueSteps(*bases, format, head) : CodeSteps();
  }

  void AddLosses(int64_t n,
                 int64_t head,
                 const std::vector<const CacheBlock*>& blocks,
                 const scorers::HeadInput& input,
                 GroupScores& result) const {
    const CacheGroup& group = spec_.layers[scoring_.attention->layer][n];
    std::vector<KeptRows> keys;
    std::vector<KeptRows> values;
    std::vector<scorers::TierRows> tiers;
    for (int64_t t = 1; t < std::ssize(spec_.tiers); ++t) {
      scorers::TierRows& rows = tiers.emplace_back();
      const int64_t key_width = TierWidth(group.key_width, spec_.tiers[t].key_share);
      const RowFormat key_format = KeyFormat(spec_, t);
      if (key_width < group.key_width || key_format != spec_.key_format) {
        const RowFormat* format = Rounding(key_format, spec_.key_format);
        rows.keys = Once(key_width, key_format, keys, [&] {
          return scoring_.attention->latent
                     ? ApproximateLatents(blocks, head, key_width, format,
                                          KeyStepsOf(key_format, head))
                     : Approximate(input.keys, KeyBasis(*layer_.coordinates, head), key_width,
                                   format, KeyStepsOf(key_format, head));
        });
      }
      const int64_t value_width = TierWidth(group.value_width, spec_.tiers[t].value_share);
      const RowFormat value_format = ValueFormat(spec_, t);
      if (value_width < group.value_width || value_format != spec_.value_format) {
        rows.values = Once(value_width, value_format, values, [&] {
          return Approximate(input.values, ValueBasis(*layer_.coordinates, head), value_width,
                             Rounding(value_format, spec_.value_format),
                             ValueStepsOf(value_format, head));
        });
      }
    }
    const int64_t columns = std::ssize(spec_.tiers);
    result.losses.resize(static_cast<size_t>(input.keys.rows * columns));
    scorers::TierLosses(input, tiers, scorers::TierLossOptionsOf(spec_.scorer),
                        MatrixD(result.losses.data(), input.keys.rows, columns));
  }

  void AddQueries(Part part,
                  int64_t head,
                  int64_t rows,
                  scorers::HeadInput& input,
                  std::vector<std::vector<float>>& storage) const {
    const AttentionStep& attention = *scoring_.attention;
    const int64_t group_size = attention.num_heads / attention.num_kv_heads;
    storage.reserve(static_cast<size_t>(2 * group_size));
    for (int64_t h = head * group_size; h < (head + 1) * group_size; ++h) {
      if (scoring_.scorer->needs_queries() || spec_.has_narrow_tiers()) {
        const int64_t window = spec_.window;
        const int64_t count = layer_.queries.count();
        input.queries.push_back(FromRing(h, window > 0 ? std::min(window, count) : count, storage));
      }
      if (part == Part::kLosses || !scoring_.scorer->needs_prompt_queries()) continue;
      MatrixF queries = scoring_.prompt_queries.rows > 0
                            ? FromPrompt(h, rows, storage)
                            : FromRing(h, layer_.queries.count(), storage);
      // Scorers count positions in rows; where tokens are missing the rotation is taken back only
      // as far as that count has come.
      if (scoring_.cos.rows > 0) {
        const LayerRotation& rotation = scoring_.rotation;
        Unrotate(queries, rotation.first_row + rows - queries.rows, scoring_.cos, scoring_.sin,
                 rotation.factor);
      }
      input.prompt_queries.push_back(queries);
    }
  }

  MatrixF FromRing(int64_t h, int64_t count, std::vector<std::vector<float>>& storage) const {
    const int64_t width = layer_.queries.width(h);
    std::vector<float>& data = storage.emplace_back(static_cast<size_t>(count * width));
    const MatrixF queries(data.data(), count, width);
    CopyQueries(layer_.queries, h, queries);
    return queries;
  }

  // Of a head, the queries of the tokens whose rows are there: of the last `rows` tokens, where the
  // layer's window has left no others.
  MatrixF FromPrompt(int64_t h, int64_t rows, std::vector<std::vector<float>>& storage) const {
    const int64_t count = std::min(rows, scoring_.prompt_queries.rows);
    const ConstMatrixF all =
        scoring_.prompt_queries.RowRange(scoring_.prompt_queries.rows - count, count);
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
  const CacheSpec& spec_;
  const LayerCache& layer_;
};

}  // namespace

LayerScoring MakeScoring(const ScoreRequest& request,
                         const CpuModel& model,
                         const CacheSpec& spec,
                         ConstMatrixF prompt_queries,
                         ThreadPool& pool,
                         kernels::InputRounding rounding) {
  LayerScoring scoring;
  scoring.scorer = request.scorer;
  scoring.attention = &model.plan().attentions[request.layer];
  scoring.rebuild = model.rebuild(request.layer);
  scoring.from_coordinates = scoring.rebuild;
  if (spec.has_narrow_tiers() && spec.basis == TierBasis::kOffline) {
    scoring.from_coordinates = model.rebuild(request.layer, spec.bases);
  }
  scoring.cos = model.cos(request.layer);
  scoring.sin = model.sin(request.layer);
  scoring.rotation = request.rotation;
  scoring.prompt_queries = prompt_queries;
  if (request.wants_output) scoring.output_grams = model.output_grams(request.layer, pool);
  scoring.pool = &pool;
  scoring.rounding = rounding;
  return scoring;
}

double MeanSquaredNorm(ConstMatrixF x, int64_t window) {
  const int64_t count = std::min(window, x.rows);
  const ConstMatrixF rows = x.RowRange(x.rows - count, count);
  double sum = 0.0;
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t e = 0; e < rows.cols; ++e) sum += static_cast<double>(rows(t, e)) * rows(t, e);
  }
  return sum / static_cast<double>(count);
}

void FindCoordinates(const std::vector<CacheGroup>& groups,
                     const LayerCache& layer,
                     ThreadPool& pool) {
  pool.ParallelFor(std::ssize(groups), 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const CacheBlock& working = layer.groups[n].recent;
      const FloatRows keys = Gather({KeysOf(working)});
      for (size_t plane = 0; plane < groups[n].heads.size(); ++plane) {
        const FloatRows values = Gather({ValuesOf(working, static_cast<int64_t>(plane))});
        SetHead(*layer.coordinates, groups[n].heads[plane], keys.view, values.view);
      }
    }
  });
}

std::vector<GroupScores> CombinePlanes(const scorers::Scorer& scorer,
                                       std::vector<std::vector<GroupScores>> groups) {
  std::vector<GroupScores> scores;
  for (std::vector<GroupScores>& planes : groups) {
    std::vector<std::vector<float>> of_heads;
    for (GroupScores& plane : planes) of_heads.push_back(std::move(plane.scores));
    GroupScores& combined = scores.emplace_back();
    combined.scores.resize(of_heads.front().size());
    scorers::CombineHeads(scorer, of_heads, combined.scores);
    combined.losses = std::move(planes.front().losses);
    for (size_t plane = 1; plane < planes.size(); ++plane) {
      for (size_t i = 0; i < combined.losses.size(); ++i) {
        combined.losses[i] += planes[plane].losses[i];
      }
    }
  }
  return scores;
}

std::vector<GroupScores> ScoreLayer(const LayerScoring& scoring,
                                    const CacheSpec& spec,
                                    const LayerCache& layer) {
  const auto& groups = spec.layers[scoring.attention->layer];
  struct Head {
    size_t group;
    int64_t head;
    int64_t plane;
  };
  std::vector<Head> heads;
  std::vector<std::vector<GroupScores>> head_scores(groups.size());
  for (size_t n = 0; n < groups.size(); ++n) {
    head_scores[n].resize(groups[n].heads.size());
    for (size_t plane = 0; plane < groups[n].heads.size(); ++plane) {
      heads.push_back({n, groups[n].heads[plane], static_cast<int64_t>(plane)});
    }
  }
  const HeadScorer scorer(scoring, spec, layer);
  // Scores and losses of a head are work of their own: few heads keep more threads busy.
  const auto count = std::ssize(heads);
  const int64_t parts = spec.has_narrow_tiers() ? 2 * count : count;
  scoring.pool->ParallelFor(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Head& head = heads[static_cast<size_t>(i % count)];
      scorer.Find(i < count ? HeadScorer::Part::kScores : HeadScorer::Part::kLosses,
                  static_cast<int64_t>(head.group), head.head, head.plane,
                  head_scores[head.group][static_cast<size_t>(head.plane)]);
    }
  });
  return CombinePlanes(*scoring.scorer, std::move(head_scores));
}

}  // namespace kvc::runtime
