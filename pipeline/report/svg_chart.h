#pragma once
// Charts as inline SVG: text without external scripts, fonts or images. The same data give the same
// bytes.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvc::report {

// Returns the text with &, <, >, " and ' as entities.
[[nodiscard]] std::string EscapeHtml(std::string_view text);

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending
};
struct ChartLabels {
  std::string title, x, y;
};

// Returns lines with markers and a legend. NaN and infinity are left out, and with `log_y` also
// values that are not positive. Empty when no point is left.
[[nodiscard]] std::string LineChart(const ChartLabels& labels,
                                    const std::vector<Series>& series,
                                    bool log_y);

// Returns one bar for each value, none for NaN and infinity; x counts from 0. Empty without values.
[[nodiscard]] std::string BarChart(const ChartLabels& labels, const std::vector<double>& values);

// values [rows][columns], 0 (light) to `most` (dark), each cell with its value as a tooltip; NaN
// and infinity are light and have "no value"; rows may differ in length. Labels for each row and
// column, or none. Empty without values.
struct HeatMapLabels {
  ChartLabels chart;
  std::vector<std::string> rows, columns;
};
[[nodiscard]] std::string HeatMap(const HeatMapLabels& labels,
                                  const std::vector<std::vector<double>>& values,
                                  double most);

}  // namespace kvc::report
