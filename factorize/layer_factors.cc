#include "factorize/layer_factors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/base/enum_names.h"
#include "core/base/error.h"
#include "factorize/head_factors.h"
#include "factorize/joint_basis.h"

namespace kvc::factorize {
namespace {

// Share of a head's metric under kOutput that comes from the queries that its keys met; the rest is
// each pair's mean energy, which is their average over all relative positions alike. (Measured on
// SmolLM2: docs/experiments/2026-11-objectives.md.)
constexpr double kMetShare = 0.9;

constexpr std::array<std::pair<Objective, std::string_view>, 8> kObjectives = {{
    {Objective::kAuto, "auto"},
    {Objective::kWeight, "weight"},
    {Objective::kInput, "input"},
    {Objective::kInputQuery, "input-query"},
    {Objective::kInputAttentionQuery, "input-attention-query"},
    {Objective::kLogit, "logit"},
    {Objective::kAttention, "attention"},
    {Objective::kOutput, "output"},
}};

linalg::Matrix RowsOf(const std::vector<float>& weight,
                      int64_t begin,
                      int64_t count,
                      int64_t cols) {
  linalg::Matrix rows(count, cols);
  std::copy_n(weight.begin() + begin * cols, count * cols, rows.data.begin());
  return rows;
}

void Append(std::vector<float>& target, const linalg::Matrix& rows) {
  target.insert(target.end(), rows.data.begin(), rows.data.end());
}

// Inputs from which one group's basis is computed.
struct GroupProblem {
  linalg::Matrix gram;        // [m, m]
  std::vector<double> scale;  // [m]
  KeyBasis basis;
  std::vector<HeadErrorWeights> heads;  // kOutput of a latent: what its basis is refined by
};

bool ByLogits(KeyLayout layout, Objective objective) {
  return objective == Objective::kLogit || objective == Objective::kAttention ||
         (objective == Objective::kOutput && layout != KeyLayout::kLatent);
}

bool ScalesByQueries(Objective objective) {
  return objective == Objective::kInputQuery || objective == Objective::kInputAttentionQuery;
}

// Returns square roots of the query energies of the group's dimensions. A key norm (Qwen3)
// multiplies a key dimension by its weight after the rebuild, so an error there weighs
// correspondingly more.
std::vector<double> QueryScale(const ModelConfig& config,
                               const LayerKeyWeights& weights,
                               const KeyStatistics& statistics,
                               int64_t begin,
                               int64_t m) {
  std::vector<double> scale(m);
  for (int64_t d = 0; d < m; ++d) {
    scale[d] = std::sqrt(statistics.query_energy[begin + d]);
    if (!weights.k_norm.empty()) {
      scale[d] *= std::abs(weights.k_norm[(begin + d) % config.head_width]);
    }
  }
  return scale;
}

// Returns the weights under kOutput of errors in the keys of the heads of group `group` of `m`
// rows. (For a key norm see QueryScale; here its signs matter.)
std::vector<HeadErrorWeights> WeighHeads(const ModelConfig& config,
                                         const LayerKeyWeights& weights,
                                         const KeyStatistics& statistics,
                                         int64_t group,
                                         int64_t m) {
  const int64_t D = config.head_width;
  const std::vector<double> scale = QueryScale(config, weights, statistics, group * m, m);
  double met = 0.0;  // traces of the two parts of the metrics
  double energy = 0.0;
  std::vector<HeadErrorWeights> heads;
  for (int64_t begin = 0; begin < m; begin += D) {
    const int64_t g = (group * m + begin) / D;
    HeadErrorWeights& head = heads.emplace_back();
    head = {begin, statistics.met_gram[g], statistics.head_gram[g]};
    for (int64_t r = 0; r < D; ++r) {
      for (int64_t c = 0; c < D && !weights.k_norm.empty(); ++c) {
        head.metric(r, c) *= static_cast<double>(weights.k_norm[r]) * weights.k_norm[c];
      }
      met += head.metric(r, r);
      energy += scale[begin + r] * scale[begin + r];
    }
  }
  // Where no error weighs anything, all of the metric comes from the queries; where they are zero,
  // from what was met; where both are, every dimension counts alike.
  const double of_met = met > 0.0 ? (energy > 0.0 ? kMetShare : 1.0) / met : 0.0;
  const double of_scale = energy > 0.0 ? (met > 0.0 ? 1.0 - kMetShare : 1.0) / energy : 0.0;
  const double alike = met > 0.0 || energy > 0.0 ? 0.0 : 1.0 / static_cast<double>(m);
  for (HeadErrorWeights& head : heads) {
    for (double& value : head.metric.data) value *= of_met;
    for (int64_t d = 0; d < D; ++d) {
      const double s = scale[head.begin + d];
      head.metric(d, d) += of_scale * s * s + alike;
    }
  }
  return heads;
}

// Returns the inputs of every group's basis, and the basis itself if it minimises errors of keys
// (not of logits): groups of `m` rows of the key projection.
std::vector<GroupProblem> MakeProblems(const ModelConfig& config,
                                       KeyLayout layout,
                                       Objective objective,
                                       int64_t m,
                                       const LayerKeyWeights& weights,
                                       const KeyStatistics* statistics,
                                       const linalg::Svd& svd) {
  const int64_t num_groups = config.num_kv_heads * config.head_width / m;
  std::vector<GroupProblem> problems(num_groups);
  if (objective == Objective::kWeight) {
    std::vector<ConstMatrixF> blocks;  // [m, E] each
    for (int64_t n = 0; n < num_groups; ++n) {
      blocks.emplace_back(weights.k.data() + n * m * config.model_width, m, config.model_width);
    }
    std::vector<linalg::GramResult> grams = svd.DecomposeGrams(blocks);
    for (int64_t n = 0; n < num_groups; ++n) {
      problems[n] = {
          std::move(grams[n].gram), std::vector<double>(m, 1.0), BasisOf(grams[n].eigen), {}};
    }
    return problems;
  }
  for (int64_t n = 0; n < num_groups; ++n) {
    GroupProblem& problem = problems[n];
    problem.gram = objective == Objective::kInputAttentionQuery ? statistics->weighted_gram[n]
                                                                : statistics->gram[n];
    problem.scale = ScalesByQueries(objective) ? QueryScale(config, weights, *statistics, n * m, m)
                                               : std::vector<double>(m, 1.0);
    if (ByLogits(layout, objective)) continue;
    if (objective == Objective::kOutput) {
      problem.heads = WeighHeads(config, weights, *statistics, n, m);
      problem.basis = SummedBasis(problem.heads, svd);
    } else {
      problem.basis = ScaledBasis(problem.gram, problem.scale, svd);
    }
  }
  return problems;
}

// Appends the errors of the group's heads, measured in the same way for every objective so that
// objectives can be compared: by the calibration's inputs and query energies if there are any.
void AppendErrors(const ModelConfig& config,
                  const LayerKeyWeights& weights,
                  const KeyStatistics* statistics,
                  const GroupProblem& problem,
                  int64_t group,
                  int64_t rank,
                  std::vector<double>& errors) {
  const int64_t m = problem.gram.rows;
  const int64_t D = config.head_width;
  const bool measured = statistics != nullptr;
  const linalg::Matrix& gram = measured ? statistics->gram[group] : problem.gram;
  const std::vector<double> scale =
      measured ? QueryScale(config, weights, *statistics, group * m, m) : problem.scale;
  for (int64_t begin = 0; begin < m; begin += D) {
    errors.push_back(RelativeError(problem.basis, rank, gram, scale, begin, D));
  }
}

LayerFactors FactorLatent(const ModelConfig& config,
                          const FactorRequest& request,
                          const LayerKeyWeights& weights,
                          const KeyStatistics* statistics,
                          const linalg::Svd& svd) {
  const int64_t m = GroupWidth(config, request.num_groups);
  LayerFactors factors;
  for (int64_t n = 0; n < request.num_groups; ++n) {
    factors.ranks.push_back(request.RankOf(n, m));
  }
  const int64_t widest = *std::max_element(factors.ranks.begin(), factors.ranks.end());
  auto problems =
      MakeProblems(config, request.layout, request.objective, m, weights, statistics, svd);
  for (int64_t n = 0; n < request.num_groups; ++n) {
    const int64_t rank = factors.ranks[n];
    const linalg::Matrix key_rows = RowsOf(weights.k, n * m, m, config.model_width);  // [m, E]
    KeyBasis& basis = problems[n].basis;
    // One head's basis is the best one already, and at full rank nothing is lost.
    if (problems[n].heads.size() > 1 && rank < m) {
      basis = RefineBasis(problems[n].heads, basis, rank, svd);
    }
    Append(factors.k, linalg::Multiply(basis.reduce.view().RowRange(0, rank), key_rows.view()));
    for (int64_t d = 0; d < m; ++d) {
      for (int64_t r = 0; r < widest; ++r) {
        factors.k_rebuild.push_back(r < rank ? static_cast<float>(basis.rebuild(d, r)) : 0.0F);
      }
    }
    AppendErrors(config, weights, statistics, problems[n], n, rank, factors.logit_errors);
    factors.spectra.push_back(basis.spectrum);
  }
  return factors;
}

// One kv head: k' = k reduce^T and, for each of its query heads, q' = q rebuild.
void AbsorbHead(const ModelConfig& config,
                const LayerKeyWeights& weights,
                const linalg::Matrix& key_rows,
                const KeyBasis& basis,
                int64_t head,
                int64_t rank,
                LayerFactors& factors) {
  const int64_t D = config.head_width;
  const int64_t E = config.model_width;
  Append(factors.k, linalg::Multiply(basis.reduce.view().RowRange(0, rank), key_rows.view()));
  const linalg::Matrix rebuild_t =
      linalg::Transpose(basis.rebuild.view().ColRange(0, rank));  // [R, D]
  for (int64_t i = 0; i < config.group_size(); ++i) {
    const int64_t first = (head * config.group_size() + i) * D;
    Append(factors.q, linalg::Multiply(rebuild_t.view(), RowsOf(weights.q, first, D, E).view()));
    if (!weights.q_bias.empty()) {
      Append(factors.q_bias,
             linalg::Multiply(rebuild_t.view(), RowsOf(weights.q_bias, first, D, 1).view()));
    }
  }
}

LayerFactors FactorAbsorb(const ModelConfig& config,
                          const FactorRequest& request,
                          const LayerKeyWeights& weights,
                          const KeyStatistics* statistics,
                          const linalg::Svd& svd) {
  const int64_t D = config.head_width;
  LayerFactors factors;
  auto problems =
      MakeProblems(config, request.layout, request.objective, D, weights, statistics, svd);
  for (int64_t g = 0; g < config.num_kv_heads; ++g) {
    const int64_t rank = request.RankOf(g, D);
    const linalg::Matrix key_rows = RowsOf(weights.k, g * D, D, config.model_width);  // [D, E]
    if (ByLogits(request.layout, request.objective)) {
      const HeadMoments moments = MomentsOf(config, request.objective, weights, statistics, g);
      problems[g].basis = LogitBasis(moments.keys, moments.queries, svd);
    }
    const KeyBasis& basis = problems[g].basis;
    AbsorbHead(config, weights, key_rows, basis, g, rank, factors);
    if (statistics != nullptr) {
      factors.logit_errors.push_back(RelativeLogitError(basis, rank, statistics->key_covariance[g],
                                                        statistics->query_gram[g]));
    } else {
      AppendErrors(config, weights, statistics, problems[g], g, rank, factors.logit_errors);
    }
    factors.ranks.push_back(rank);
    factors.spectra.push_back(basis.spectrum);
  }
  return factors;
}

}  // namespace

std::string_view ObjectiveName(Objective objective) { return EnumName(kObjectives, objective); }

Objective ObjectiveFromName(std::string_view name) {
  return EnumValue(kObjectives, name, "--objective");
}

bool CanHaveObjective(KeyLayout layout, Objective objective) {
  const bool latent = layout == KeyLayout::kLatent;
  switch (objective) {
    case Objective::kAuto:
    case Objective::kOutput:
      return true;
    case Objective::kWeight:
      return layout != KeyLayout::kPostRope;  // rotation depends on positions, not on weights
    case Objective::kInput:
    case Objective::kInputQuery:
    case Objective::kInputAttentionQuery:
      return latent || layout == KeyLayout::kAbsorb;
    case Objective::kLogit:
    case Objective::kAttention:
      return !latent;  // rotation comes between its keys and queries
  }
  KVC_THROW(kInternal, "objective: expected one of the enumeration");
}

Objective ResolveObjective(Objective objective, KeyLayout layout, int64_t group_width) {
  if (objective == Objective::kAuto) {
    if (layout == KeyLayout::kLatent) {
      return group_width <= kWidestOutputGroup ? Objective::kOutput
                                               : Objective::kInputAttentionQuery;
    }
    return layout == KeyLayout::kPostRope ? Objective::kAttention : Objective::kLogit;
  }
  std::string names;
  for (const auto& [known, name] : kObjectives) {
    if (CanHaveObjective(layout, known)) names += (names.empty() ? "" : ", ") + std::string(name);
  }
  KVC_CHECK(CanHaveObjective(layout, objective), kUsage,
            "--objective: expected one of {} with --layout {}, got {}", names,
            KeyLayoutName(layout), ObjectiveName(objective));
  return objective;
}

int64_t RankFor(const RankRequest& rank, int64_t width, KeyLayout layout) {
  const int64_t least = layout == KeyLayout::kRopePairs ? 2 : 1;
  if (!rank.is_share) {
    KVC_CHECK(rank.dims >= 1 && rank.dims <= width, kUsage,
              "--rank: expected 1 to {} dimensions of a group, got {}", width, rank.dims);
    KVC_CHECK(rank.dims % least == 0, kUsage,
              "--rank: expected an even number of dimensions with --layout rope-pairs, got {}",
              rank.dims);
    return rank.dims;
  }
  const int64_t step = width >= 32 ? 8 : least;
  const auto steps =
      std::llround(rank.share * static_cast<double>(width) / static_cast<double>(step));
  return std::clamp<int64_t>(steps * step, std::min(step, width), width);
}

int64_t FactorRequest::RankOf(int64_t group, int64_t width) const {
  return group_ranks.empty() ? RankFor(rank, width, layout) : group_ranks[group];
}

LayerFactors FactorLayer(const ModelConfig& config,
                         const FactorRequest& request,
                         const LayerKeyWeights& weights,
                         const KeyStatistics* statistics,
                         const linalg::Svd& svd) {
  KVC_CHECK(!NeedsCalibration(request.objective) || statistics != nullptr, kInternal,
            "objective {} without calibration", ObjectiveName(request.objective));
  switch (request.layout) {
    case KeyLayout::kAbsorb:
      return FactorAbsorb(config, request, weights, statistics, svd);
    case KeyLayout::kLatent:
      return FactorLatent(config, request, weights, statistics, svd);
    case KeyLayout::kPostRope:
      return FactorPostRope(config, request, *statistics, svd);
    case KeyLayout::kRopePairs:
      return FactorRopePairs(config, request, weights, statistics);
    case KeyLayout::kFull:
      break;
  }
  KVC_THROW(kInternal, "layout: expected one with thin keys");
}

}  // namespace kvc::factorize
