#include "pipeline/report/heat_map.h"

#include <algorithm>
#include <cmath>

#include "pipeline/report/escape.h"
#include "pipeline/report/format_text.h"

namespace kvc::report {
namespace {

constexpr size_t kColumnsWithText = 12;
constexpr size_t kLabelsInARow = 16;

std::string ValueIn(const HeatMap& map, double value) {
  if (!std::isfinite(value)) return "no value";
  return map.share ? Percent(value) : FormatText("%.5g", value);
}

std::string Cell(const HeatMap& map, size_t row, size_t column) {
  const double value = map.values[row][column];
  const bool known = std::isfinite(value);
  const double strength = known && map.most > 0.0 ? std::clamp(value / map.most, 0.0, 1.0) : 0.0;
  const std::string title = map.row_name + " " + map.rows[row] + ", " + map.column_name + " " +
                            map.columns[column] + ": " + ValueIn(map, value);
  std::string text;
  if (known && map.values[row].size() <= kColumnsWithText) {
    text = map.share ? Number(100.0 * value, 0) : FormatText("%.3g", value);
  }
  return FormatText("<td class=\"%s\" style=\"--v:%.3f\" title=\"",
                    !known            ? "unknown"
                    : strength > 0.55 ? "strong"
                                      : "weak",
                    strength) +
         EscapeHtml(title) + "\">" + text + "</td>";
}

// The labels of the columns: every `step`-th, over as many columns.
std::string ColumnLabels(const HeatMap& map, size_t columns) {
  size_t step = 1;
  for (size_t i = 0; columns > kLabelsInARow * step; ++i) step = step * (i % 3 == 1 ? 5 : 4) / 2;
  std::string html = "<tr><th></th>";
  for (size_t c = 0; c < columns; c += step) {
    html += FormatText("<th colspan=\"%zu\" scope=\"col\">", std::min(step, columns - c)) +
            EscapeHtml(map.columns[c]) + "</th>";
  }
  return html + "</tr>\n";
}

}  // namespace

std::string ToHtml(const HeatMap& map) {
  size_t columns = 0;
  for (const auto& row : map.values) columns = std::max(columns, row.size());
  if (columns == 0) return {};
  const bool wide = columns > kColumnsWithText;
  std::string html = FormatText("<figure class=\"heat%s\"><figcaption>", wide ? " wide" : "") +
                     EscapeHtml(map.title) + "</figcaption>\n<div class=\"scroll\"><table>\n";
  for (size_t r = 0; r < map.values.size(); ++r) {
    html += "<tr><th scope=\"row\">" + EscapeHtml(map.rows[r]) + "</th>";
    for (size_t c = 0; c < map.values[r].size(); ++c) html += Cell(map, r, c);
    html += "</tr>\n";
  }
  html += ColumnLabels(map, columns) + "</table></div>\n<p class=\"legend\"><span>" +
          EscapeHtml(map.row_name) + " (down), " + EscapeHtml(map.column_name) +
          " (across)</span> <span class=\"scale\">0<i class=\"ramp\"></i>" +
          EscapeHtml(ValueIn(map, map.most)) + "</span> <output></output></p>\n";
  if (!map.note.empty()) html += "<p class=\"note\">" + EscapeHtml(map.note) + "</p>\n";
  return html + "</figure>\n";
}

}  // namespace kvc::report
