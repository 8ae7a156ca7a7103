#include "export/budget/budget_plan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "core/base/error.h"
#include "export/budget/budget_checks.h"
#include "scorers/scorer.h"

namespace kvc::budget {
namespace {

// The recent block's spare rows, a sixteenth of a group's rows within these bounds. They hold
// nothing right after a re-allocation, so they are few; with 16 of them re-allocation, which reads
// every key once, adds a sixteenth to what decoding reads of them.
constexpr int64_t kMinMargin = 8;
constexpr int64_t kMaxMargin = 16;
constexpr int64_t kRowsPerMarginRow = 16;
// Queries kept for scorers that need them at re-allocation. A query of all heads in float is as
// long as several tokens' rows, so they are few: eight took a quarter of a budget of 12.5 % at 768
// tokens (docs/experiments/2026-11-rows-in-few-bits.md).
constexpr int64_t kQueryRing = 2;
// PyramidKV's ratio between the mean and the smallest layer.
constexpr double kPyramidBeta = 20.0;
// HeadKV: a share 1/beta of the rows is spread by importance.
constexpr double kHeadKvBeta = 1.2;

using Rows = std::vector<std::vector<double>>;  // [L][n]

// Rows before rounding as a function of the mean number of rows of a group.
using Spread = std::function<Rows(double mean_rows)>;

int64_t NumGroups(const CacheGeometry& geometry) {
  int64_t count = 0;
  for (const auto& groups : geometry.layers) count += static_cast<int64_t>(groups.size());
  return count;
}

// Bytes of one row in every group of the model.
int64_t RowBytesOfModel(const CacheGeometry& geometry) {
  int64_t bytes = 0;
  for (const auto& groups : geometry.layers) {
    for (const CacheGroup& group : groups) bytes += BytesPerToken(geometry, group);
  }
  return bytes;
}

int64_t MarginFor(const CacheGeometry& geometry, int64_t bytes) {
  const int64_t mean_rows = bytes / std::max<int64_t>(1, RowBytesOfModel(geometry));
  return std::clamp(mean_rows / kRowsPerMarginRow, kMinMargin, kMaxMargin);
}

// Sets the budget from rows at the reference length, held within what a group can use.
void SetRows(CacheSpec& spec, const Rows& rows, int64_t length) {
  spec.budget.assign(rows.size(), {});
  for (size_t l = 0; l < rows.size(); ++l) {
    const int64_t seen = spec.SeenTokens(static_cast<int64_t>(l), length);
    const auto most = static_cast<double>(seen);
    const auto least = static_cast<double>(std::min(seen, MinRows(spec)));
    for (const double wanted : rows[l]) {
      const double held = std::clamp(wanted, least, most);
      spec.budget[l].push_back(spec.by_share ? held / most : held);
    }
  }
}

Rows EqualRows(const CacheGeometry& geometry, double mean) {
  Rows rows;
  for (const auto& groups : geometry.layers) rows.emplace_back(groups.size(), mean);
  return rows;
}

// Linear over the layers; when the first layer would exceed the sequence the slope shrinks.
Rows PyramidRows(const CacheSpec& spec, double mean, int64_t length) {
  const auto base = static_cast<double>(ProtectedRows(spec));
  const double b = std::max(0.0, mean - base);
  double least = b / kPyramidBeta;
  double most = 2.0 * b - least;
  const double room = std::max(0.0, static_cast<double>(length) - base);
  if (most > room) {
    most = room;
    least = 2.0 * b - most;
  }
  const int64_t layers = spec.num_layers();
  Rows rows;
  for (int64_t l = 0; l < layers; ++l) {
    const double t = layers > 1 ? static_cast<double>(l) / static_cast<double>(layers - 1) : 0.5;
    rows.emplace_back(spec.layers[l].size(), base + most + (least - most) * t);
  }
  return rows;
}

// [L][n] importance of each group: the sum over its heads.
Rows GroupImportance(const CacheSpec& spec, const ProfileData& profile) {
  Rows importance;
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    std::vector<double>& row = importance.emplace_back();
    for (const CacheGroup& group : spec.layers[l]) {
      double sum = 0.0;
      for (const int64_t head : group.heads) {
        sum += profile.importance[static_cast<size_t>(l * spec.num_kv_heads + head)];
      }
      row.push_back(sum);
    }
  }
  return importance;
}

Rows HeadKvRows(const CacheSpec& spec, const Rows& importance, double mean) {
  const auto base = static_cast<double>(ProtectedRows(spec));
  const double b = std::max(0.0, mean - base);
  double total = 0.0;
  for (const auto& row : importance) total = std::accumulate(row.begin(), row.end(), total);
  const double pool = b / kHeadKvBeta * static_cast<double>(NumGroups(spec));
  Rows rows = importance;
  for (auto& row : rows) {
    for (double& value : row) {
      const double share = total > 0.0 ? value / total : 1.0 / static_cast<double>(NumGroups(spec));
      value = base + b - b / kHeadKvBeta + share * pool;
    }
  }
  return rows;
}

// The largest mean number of rows whose spread stays within `bytes`; monotone, so by bisection.
void FitSpread(CacheSpec& spec, const Spread& spread, int64_t length, int64_t bytes) {
  const auto fits = [&](double mean) {
    SetRows(spec, spread(mean), length);
    return PredictBytes(spec, length).allocated <= bytes;
  };
  double low = 0.0;  // every group at its least: feasible, or the caller has refused
  // A group with a millionth of the mean importance still reaches the whole sequence.
  double high = static_cast<double>(length) * 1e6;
  if (fits(high)) return;
  constexpr int kBisections = 80;  // below a thousandth of a row
  for (int i = 0; i < kBisections; ++i) {
    const double middle = 0.5 * (low + high);
    (fits(middle) ? low : high) = middle;
  }
  SetRows(spec, spread(low), length);
}

std::optional<RowFormat> RecentFormat(const CacheGeometry& geometry,
                                      const std::vector<Tier>& tiers,
                                      const Policy& policy) {
  if (policy.recent_format) {
    const bool own = policy.recent_format != geometry.key_format;
    return own ? policy.recent_format : std::nullopt;
  }
  for (const Tier& tier : tiers) {
    const bool whole = tier.key_share >= 1.0 && tier.value_share >= 1.0;
    if (tier.key_format && IsMixed(*tier.key_format)) continue;
    if (whole && tier.key_format && tier.key_format == tier.value_format) return tier.key_format;
  }
  return std::nullopt;
}

CacheSpec MakeBudgetedSpec(const CacheGeometry& geometry,
                           const PlanRequest& request,
                           int64_t margin) {
  CacheSpec spec{geometry, {}, request.bases};
  spec.method = request.policy.method;
  spec.scorer = request.policy.method == Method::kStreaming ? ScorerSpec(ScorerKind::kStreaming)
                                                            : request.policy.scorer;
  spec.sinks = request.sinks;
  spec.window = WindowOf(request);
  spec.margin = margin;
  spec.tiers = TiersOf(request);
  spec.basis = request.policy.basis;
  spec.recent_format = RecentFormat(geometry, spec.tiers, request.policy);
  const auto scorer = scorers::Scorer::Create(spec.scorer);
  const bool needs_queries = scorer->needs_queries() || scorer->needs_prompt_queries();
  spec.query_ring = needs_queries && !request.append ? kQueryRing : 0;
  spec.by_share = request.budget.unit == Budget::Unit::kShare;
  return spec;
}

int64_t LeastBytes(CacheSpec spec, int64_t length) {
  SetRows(spec, EqualRows(spec, 0.0), length);
  return PredictBytes(spec, length).allocated;
}

// The smallest possible budget in the unit of the one that was asked for.
std::string LeastBudget(const CacheSpec& spec,
                        const Budget& budget,
                        int64_t bytes,
                        int64_t length) {
  std::ostringstream text;
  if (budget.unit == Budget::Unit::kBytes) {
    text << bytes << "@" << length;
  } else if (budget.unit == Budget::Unit::kTokens) {
    const int64_t token = OriginalBytesPerToken(spec);
    int64_t tokens = (bytes + token - 1) / token;
    while (tokens < length && OriginalBytes(spec, tokens) < bytes) ++tokens;
    text << tokens << "tok";
  } else {
    const auto full = static_cast<double>(OriginalBytes(spec, length));
    double hundredths = std::ceil(static_cast<double>(bytes) / full * 1e4) - 1.0;
    // What is named must be enough when it is read again.
    Budget named;
    do {
      named.share = ++hundredths / 100.0 / 100.0;
    } while (BudgetBytes(spec, named, length) < bytes);
    text << hundredths / 100.0 << "%";
  }
  return text.str();
}

[[noreturn]] void Refuse(const CacheSpec& spec,
                         const PlanRequest& request,
                         int64_t least_bytes,
                         int64_t length) {
  KVC_THROW(
      kInfeasible,
      "--budget {}: expected at least {} with --method {} at {} tokens, got {} of the {} that it "
      "needs; raise --budget, or {}",
      ToString(request.budget), LeastBudget(spec, request.budget, least_bytes, length),
      MethodName(request.policy.method), length,
      FormatBytes(BudgetBytes(spec, request.budget, length)), FormatBytes(least_bytes),
      request.policy.method == Method::kFull ? "choose another --method"
                                             : "lower --window and --sinks");
}

BudgetPlan MakeFullPlan(const CacheGeometry& geometry, const PlanRequest& request, int64_t length) {
  KVC_CHECK(
      request.policy.tiers.size() <= 1, kUsage,
      "--tiers: expected 0,1 with --method full, which keeps every token whole, got narrower ones");
  BudgetPlan plan;
  plan.spec = {geometry, {}, request.bases};
  plan.spec.method = Method::kFull;
  plan.spec.scorer = request.policy.scorer;
  plan.spec.sinks = request.sinks;
  plan.spec.window = WindowOf(request);
  plan.bytes = PredictBytes(plan.spec, length);
  // 100 % is no limit: what a full-rank latent's positions take beyond it is still the full cache.
  const bool limited = request.budget.unit != Budget::Unit::kShare || request.budget.share < 1.0;
  if (limited && plan.bytes.logical > BudgetBytes(geometry, request.budget, length)) {
    Refuse(plan.spec, request, plan.bytes.logical, length);
  }
  return plan;
}

BudgetPlan MakeSpreadPlan(const CacheGeometry& geometry,
                          const PlanRequest& request,
                          int64_t length) {
  const int64_t bytes = BudgetBytes(geometry, request.budget, length);
  BudgetPlan plan;
  const int64_t least_margin = request.append ? 0 : kMinMargin;
  const int64_t margin = request.append ? 0 : MarginFor(geometry, bytes);
  plan.spec = MakeBudgetedSpec(geometry, request, margin);
  if (plan.spec.has_narrow_tiers()) CheckMixed(plan.spec, request);
  if (LeastBytes(plan.spec, length) > bytes) plan.spec.margin = least_margin;
  const int64_t least = LeastBytes(plan.spec, length);
  if (least > bytes) Refuse(plan.spec, request, least, length);
  CacheSpec& spec = plan.spec;
  if (request.policy.method == Method::kLuKv || request.policy.method == Method::kLuKvMixed) {
    const CurveFit fit = FitUtilityCurves(spec, *request.profile, LossOf(request), length, bytes);
    SetRows(spec, fit.rows, length);
    plan.solver = fit.solver;
    if (request.policy.method == Method::kLuKvMixed && request.profile->tiers != spec.tiers) {
      plan.warnings.emplace_back(
          "lukv-mixed: the profile's curves are of other tiers, heads share the budget by those; "
          "run kvc-profile with the same --tiers");
    }
  } else if (request.policy.method == Method::kPyramid) {
    FitSpread(
        spec, [&](double mean) { return PyramidRows(spec, mean, length); }, length, bytes);
  } else if (request.policy.method == Method::kHeadKv) {
    const Rows importance = GroupImportance(spec, *request.profile);
    FitSpread(
        spec, [&](double mean) { return HeadKvRows(spec, importance, mean); }, length, bytes);
  } else {
    FitSpread(
        spec, [&](double mean) { return EqualRows(spec, mean); }, length, bytes);
  }
  plan.bytes = PredictBytes(spec, length);
  KVC_CHECK(plan.bytes.allocated <= bytes, kInternal,
            "budget plan: expected at most {} bytes, got {}", bytes, plan.bytes.allocated);
  return plan;
}

}  // namespace

int64_t BudgetBytes(const CacheGeometry& geometry, const Budget& budget, int64_t length) {
  switch (budget.unit) {
    case Budget::Unit::kShare:
      return static_cast<int64_t>(
          std::floor(budget.share * static_cast<double>(OriginalBytes(geometry, length))));
    case Budget::Unit::kTokens:
      return OriginalBytes(geometry, std::min(budget.tokens, length));
    case Budget::Unit::kBytes:
      return budget.bytes;
  }
  KVC_THROW(kInternal, "budget: unknown unit");
}

std::shared_ptr<const std::vector<LayerBases>> SharedBases(const ProfileData* profile) {
  if (profile == nullptr || profile->bases.empty()) return nullptr;
  return std::make_shared<const std::vector<LayerBases>>(profile->bases);
}

std::vector<Tier> TiersOf(const PlanRequest& request) {
  if (!request.policy.tiers.empty()) return request.policy.tiers;
  if (request.policy.method != Method::kLuKvMixed) return {Tier{}};
  if (request.profile != nullptr && !request.profile->tiers.empty()) return request.profile->tiers;
  return {Tier{}, {0.25, 0.25}, {0.125, 0.125}};
}

CurveLoss LossOf(const PlanRequest& request) {
  if (request.policy.loss) return *request.policy.loss;
  return request.policy.method == Method::kLuKvMixed && InFewBits(TiersOf(request))
             ? CurveLoss::kOutputError
             : CurveLoss::kImportance;
}

int64_t WindowOf(const PlanRequest& request) {
  if (request.window) return *request.window;
  const bool asks_prompt = request.policy.scorer.options.prompt > 0;
  if (!asks_prompt || !InFewBits(TiersOf(request))) return kWindow;
  return request.append ? kAppendWindow : kNarrowWindow;
}

BudgetPlan MakeBudgetPlan(const CacheGeometry& geometry, const PlanRequest& request) {
  KVC_CHECK(request.sinks >= 0, kUsage, "--sinks: expected 0 or more, got {}", request.sinks);
  KVC_CHECK(WindowOf(request) >= 1, kUsage, "--window: expected 1 or more, got {}",
            WindowOf(request));
  CheckMethod(geometry, request);
  const int64_t length = request.budget.unit == Budget::Unit::kBytes ? request.budget.at_length
                                                                     : request.reference_length;
  BudgetPlan plan = request.policy.method == Method::kFull
                        ? MakeFullPlan(geometry, request, length)
                        : MakeSpreadPlan(geometry, request, length);
  plan.reference_length = length;
  plan.rows = RowsAt(plan.spec, length);
  return plan;
}

std::vector<std::vector<HeadShare>> HeadShares(const BudgetPlan& plan) {
  const CacheSpec& spec = plan.spec;
  std::vector<std::vector<HeadShare>> shares;
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    std::vector<HeadShare>& row = shares.emplace_back(static_cast<size_t>(spec.num_kv_heads));
    for (size_t n = 0; n < spec.layers[l].size(); ++n) {
      const CacheGroup& group = spec.layers[l][n];
      const int64_t rows = plan.rows[l][n];
      const int64_t bytes = spec.full() ? rows * BytesPerToken(spec, group)
                                        : GroupBytes(spec, l, group, rows, plan.reference_length);
      const auto heads = static_cast<int64_t>(group.heads.size());
      for (int64_t i = 0; i < heads; ++i) {
        HeadShare& share = row[static_cast<size_t>(group.heads[i])];
        share.tokens = rows;
        share.bytes = bytes / heads + (i < bytes % heads ? 1 : 0);
      }
    }
  }
  return shares;
}

CacheSpec WithBudget(const Manifest& manifest, const Budget& budget, const std::string& text) {
  const CacheSpec& cache = manifest.cache;
  const Method method = cache.method;
  KVC_CHECK(method != Method::kHeadKv && method != Method::kLuKv && method != Method::kLuKvMixed,
            kUsage,
            "--budget: expected a bundle whose method spreads rows without a profile, got {}; "
            "export the bundle again with --budget {}",
            MethodName(method), text);
  const bool everything = budget.unit == Budget::Unit::kShare && budget.share >= 1.0;
  PlanRequest request;
  request.budget = budget;
  request.policy.method = everything                ? Method::kFull
                          : method == Method::kFull ? Method::kUniform
                                                    : method;
  request.policy.scorer = cache.scorer;
  request.sinks = cache.sinks;
  request.window = cache.window;
  if (cache.has_narrow_tiers() && !everything) request.policy.tiers = cache.tiers;
  request.policy.recent_format = cache.recent_format.value_or(cache.key_format);
  request.policy.basis = cache.basis;
  request.bases = cache.bases;
  request.reference_length =
      manifest.reference_length > 0 ? manifest.reference_length : manifest.model.context_length;
  return MakeBudgetPlan(cache, request).spec;
}

}  // namespace kvc::budget
