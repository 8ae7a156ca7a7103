#include "export/budget/budget_curves.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/base/enum_names.h"
#include "solver/greedy_solver.h"

namespace kvc::budget {
namespace {

constexpr std::array<std::pair<CurveLoss, std::string_view>, 2> kLosses = {{
    {CurveLoss::kImportance, "importance"},
    {CurveLoss::kOutputError, "output-error"},
}};

// One group's curve: loss against bytes, and the rows that each point stands for.
struct GroupCurve {
  solver::Curve points;
  std::vector<int64_t> rows;
};

GroupCurve MakeGroupCurve(const CacheSpec& spec,
                          int64_t layer,
                          const CacheGroup& group,
                          const std::vector<float>& curves,
                          int64_t length) {
  GroupCurve curve;
  const int64_t seen = spec.SeenTokens(layer, length);
  const int64_t evictable = std::max<int64_t>(0, seen - spec.sinks - spec.window);
  for (int64_t point = 0; point <= kCurveIntervals; ++point) {
    const int64_t kept = (point * evictable + kCurveIntervals / 2) / kCurveIntervals;
    const int64_t rows = std::min(seen, std::max(MinRows(spec), ProtectedRows(spec) + kept));
    double loss = 0.0;
    for (const int64_t head : group.heads) {
      const int64_t first = (layer * spec.num_kv_heads + head) * (kCurveIntervals + 1);
      loss += static_cast<double>(curves[static_cast<size_t>(first + point)]);
    }
    const auto cost = static_cast<double>(GroupBytes(spec, layer, group, rows, length));
    if (!curve.points.empty() && curve.points.back().cost >= cost) {
      curve.points.back().loss = loss;  // the same rows: more of the curve's tokens fit
      continue;
    }
    curve.points.push_back({cost, loss});
    curve.rows.push_back(rows);
  }
  return curve;
}

// Single rows for what the solver's grid leaves over, to the groups that gain most by a byte.
void SpendRest(const CacheSpec& spec,
               const std::vector<GroupCurve>& curves,
               const solver::Allocation& allocation,
               int64_t bytes_left,
               std::vector<int64_t>& rows) {
  std::vector<double> slopes(curves.size(), 0.0);  // loss saved by a byte, to the next point
  std::vector<int64_t> row_bytes;
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    for (const CacheGroup& group : spec.layers[l]) {
      row_bytes.push_back(BytesPerToken(spec, group) + TierRowExtraBytes(spec, l));
    }
  }
  std::vector<size_t> order;
  for (size_t i = 0; i < curves.size(); ++i) {
    const auto at = static_cast<size_t>(allocation.choice[i]);
    if (at + 1 >= curves[i].points.size()) continue;
    const solver::CurvePoint& here = curves[i].points[at];
    const solver::CurvePoint& next = curves[i].points[at + 1];
    slopes[i] = (here.loss - next.loss) / (next.cost - here.cost);
    order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return slopes[a] > slopes[b]; });
  for (const size_t i : order) {
    const auto at = static_cast<size_t>(allocation.choice[i]);
    const int64_t room = curves[i].rows[at + 1] - curves[i].rows[at] - 1;
    const int64_t extra = std::clamp<int64_t>(bytes_left / row_bytes[i], 0, room);
    rows[i] += extra;
    bytes_left -= extra * row_bytes[i];
  }
}

}  // namespace

std::string_view CurveLossName(CurveLoss loss) { return EnumName(kLosses, loss); }
CurveLoss CurveLossFromName(std::string_view name) { return EnumValue(kLosses, name, "--loss"); }

const std::map<ScorerSpec, std::vector<float>>& CurvesFor(const ProfileData& profile,
                                                          Method method,
                                                          CurveLoss loss) {
  if (method == Method::kLuKvMixed) return profile.mixed_curves;
  return loss == CurveLoss::kImportance ? profile.curves : profile.error_curves;
}

namespace {

// CurvesFor of spec.scorer. With tiers and importance as the loss, a head's curve is the importance
// that it holds times the share of its output's error: the two differ in what a head is worth, and
// only the error knows tiers.
std::vector<float> LossesFor(const CacheSpec& spec, const ProfileData& profile, CurveLoss loss) {
  std::vector<float> losses = CurvesFor(profile, spec.method, loss).at(spec.scorer);
  if (spec.method != Method::kLuKvMixed || loss != CurveLoss::kImportance) return losses;
  const std::vector<float>& importance = profile.curves.at(spec.scorer);
  for (size_t first = 0; first < losses.size(); first += kCurveIntervals + 1) {
    const float all = losses[first];
    const float scale = all > 0.0F ? importance[first] / all : 0.0F;
    for (size_t i = first; i <= first + kCurveIntervals; ++i) losses[i] *= scale;
  }
  return losses;
}

}  // namespace

int64_t ProtectedRows(const CacheSpec& spec) { return spec.sinks + RecentWorth(spec); }

int64_t GroupBytes(
    const CacheSpec& spec, int64_t layer, const CacheGroup& group, int64_t rows, int64_t length) {
  const GroupRows layout = LayoutLayerRows(spec, layer, rows, length);
  return LayoutBytes(spec, layer, group, layout);
}

CurveFit FitUtilityCurves(const CacheSpec& spec,
                          const ProfileData& profile,
                          CurveLoss loss,
                          int64_t length,
                          int64_t bytes) {
  const std::vector<float> losses = LossesFor(spec, profile, loss);
  std::vector<GroupCurve> curves;
  std::vector<solver::Curve> points;
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    bytes -= QueryRingBytes(spec, l);
    for (const CacheGroup& group : spec.layers[l]) {
      curves.push_back(MakeGroupCurve(spec, l, group, losses, length));
      points.push_back(curves.back().points);
    }
  }
  const solver::Allocation allocation = solver::SolveGreedy(points, static_cast<double>(bytes));
  std::vector<int64_t> flat;
  for (size_t i = 0; i < curves.size(); ++i) {
    flat.push_back(curves[i].rows[static_cast<size_t>(allocation.choice[i])]);
  }
  SpendRest(spec, curves, allocation, bytes - static_cast<int64_t>(allocation.cost), flat);
  CurveFit fit;
  size_t next = 0;
  for (const auto& groups : spec.layers) {
    std::vector<double>& row = fit.rows.emplace_back();
    for (size_t n = 0; n < groups.size(); ++n) row.push_back(static_cast<double>(flat[next++]));
  }
  fit.solver = {allocation.objective, allocation.bound, allocation.objective - allocation.bound};
  return fit;
}

}  // namespace kvc::budget
