#include "profile/lukv_table.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/safetensors.h"
#include "solver/convex_hull.h"

namespace kvc::profile {
namespace {

constexpr const char* kNpy = ".npy";
constexpr const char* kSafetensors = ".safetensors";

// Tokens of a head that each gain the same importance.
struct Segment {
  int64_t head = 0;
  double tokens = 0.0;
  double slope = 0.0;  // importance lost by dropping one
};

// Returns the smallest number of tokens that a head keeps.
double LeastTokens(const ProfileData& profile) {
  const auto tokens = static_cast<double>(profile.context);
  return std::max(std::round(0.01 * tokens), static_cast<double>(profile.sinks + profile.window));
}

// Adds the segments of a head's hull, steepest first; together they are all tokens beyond the
// least.
void AddSegments(const ProfileData& profile,
                 const std::vector<float>& curves,
                 int64_t head,
                 std::vector<Segment>& segments) {
  const auto tokens = static_cast<double>(profile.context);
  const auto fixed = static_cast<double>(profile.sinks + profile.window);
  const double least = LeastTokens(profile);
  std::vector<solver::CurvePoint> points;
  for (int64_t i = 0; i <= kCurveIntervals; ++i) {
    const double kept = fixed + (tokens - fixed) * static_cast<double>(i) / kCurveIntervals;
    const auto loss = static_cast<double>(curves[head * (kCurveIntervals + 1) + i]);
    points.push_back({kept, loss});
  }
  double from = least;
  const std::vector<int64_t> hull = solver::LowerHull(points);
  for (size_t i = 1; i < hull.size(); ++i) {
    const solver::CurvePoint& a = points[hull[i - 1]];
    const solver::CurvePoint& b = points[hull[i]];
    const double end = std::max(from, b.cost);
    segments.push_back({head, end - from, (a.loss - b.loss) / (b.cost - a.cost)});
    from = end;
  }
  segments.push_back({head, tokens - from, 0.0});  // no query of the calibration asks for them
}

}  // namespace

std::vector<float> LuKvTable(const ProfileData& profile, const ScorerSpec& scorer) {
  const int64_t heads = profile.num_layers * profile.num_kv_heads;
  const auto tokens = static_cast<double>(profile.context);
  const std::vector<float>& curves = profile.curves.at(scorer);
  std::vector<Segment> segments;
  for (int64_t h = 0; h < heads; ++h) AddSegments(profile, curves, h, segments);
  std::ranges::stable_sort(segments,
                           [](const Segment& a, const Segment& b) { return a.slope < b.slope; });
  std::vector<double> dropped(heads, 0.0);
  std::vector<float> table;
  double total = 0.0;
  size_t next = 0;
  for (int64_t i = 1; i <= kLuKvRatios; ++i) {
    double left = static_cast<double>(i) / 100.0 * tokens * static_cast<double>(heads) - total;
    while (next < segments.size() && left > 0.0) {
      Segment& segment = segments[next];
      const double part = std::min(left, segment.tokens);
      dropped[segment.head] += part;
      segment.tokens -= part;
      total += part;
      left -= part;
      if (segment.tokens <= 0.0) ++next;
    }
    for (const double count : dropped) table.push_back(static_cast<float>(count / tokens));
  }
  return table;
}

void CheckLuKvTableName(const std::filesystem::path& path) {
  KVC_CHECK(path.extension() == kNpy || path.extension() == kSafetensors, kUsage,
            "--lukv-table: expected a name that ends in .npy or .safetensors, got {}",
            path.string());
}

void WriteLuKvTable(const std::filesystem::path& path,
                    const ProfileData& profile,
                    const ScorerSpec& scorer) {
  CheckLuKvTableName(path);
  const std::vector<float> table = LuKvTable(profile, scorer);
  const std::vector<int64_t> shape = {kLuKvRatios, profile.num_layers, profile.num_kv_heads};
  if (path.extension() == kNpy) {
    WriteNpy(path, table, shape);
    return;
  }
  SafetensorsWriter writer(path, {{"ratios", DType::kF32, shape}}, {{"scorer", ToString(scorer)}});
  writer.WriteFloats("ratios", table);
  writer.Close();
}

}  // namespace kvc::profile
