#include "pipeline/report/chart.h"

#include <cmath>

#include "core/base/sizes.h"
#include "core/io/json.h"
#include "pipeline/report/format_text.h"

namespace kvc::report {
namespace {

bool CanStandOn(const Axis& axis, double value) {
  return std::isfinite(value) && (axis.scale == Scale::kLinear || value > 0.0);
}

const char* NameOf(Unit unit) {
  switch (unit) {
    case Unit::kShare:
      return "share";
    case Unit::kTokens:
      return "tokens";
    case Unit::kBytes:
      return "bytes";
    case Unit::kCount:
      return "count";
    case Unit::kNumber:
      break;
  }
  return "number";
}

Json ToJson(const Axis& axis) {
  const char* scale = axis.scale == Scale::kLog        ? "log"
                      : axis.scale == Scale::kHalvings ? "halvings"
                                                       : "linear";
  return {{"label", axis.label}, {"unit", NameOf(axis.unit)}, {"scale", scale}};
}

}  // namespace

Chart Drawable(Chart chart) {
  for (Series& one : chart.series) {
    std::erase_if(one.points, [&](const auto& point) {
      return !CanStandOn(chart.x, point.first) || !CanStandOn(chart.y, point.second);
    });
  }
  std::erase_if(chart.series, [](const Series& one) { return one.points.empty(); });
  return chart;
}

size_t CountPoints(const Chart& chart) {
  size_t count = 0;
  for (const Series& one : chart.series) count += one.points.size();
  return count;
}

std::string ValueText(double value, const Axis& axis) {
  switch (axis.unit) {
    case Unit::kShare:
      return Percent(value);
    case Unit::kTokens:
      return Tokens(value);
    case Unit::kBytes:
      return FormatBytes(static_cast<int64_t>(value));
    case Unit::kCount:
    case Unit::kNumber:
      break;
  }
  return FormatText("%.4g", value);
}

Json ToJson(const Chart& chart) {
  Json json = {{"title", chart.title},   {"x", ToJson(chart.x)},     {"y", ToJson(chart.y)},
               {"bars", chart.bars},     {"markers", chart.markers}, {"filled", chart.filled},
               {"series", Json::array()}};
  for (const Series& one : chart.series) {
    json["series"].push_back({{"name", one.name},
                              {"run", one.run},
                              {"group", one.group.empty() ? one.name : one.group},
                              {"points", one.points}});
  }
  return json;
}

}  // namespace kvc::report
