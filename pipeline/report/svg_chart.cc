#include "pipeline/report/svg_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "pipeline/report/format_text.h"

namespace kvc::report {
namespace {

// Chart geometry in user units: the whole chart, and the plot inside it.
constexpr double kWidth = 640.0, kHeight = 320.0;
constexpr double kLeft = 70.0, kTop = 34.0, kPlotWidth = 360.0, kPlotHeight = 230.0;
constexpr int kTicks = 5;

constexpr const char* kColours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e",
                                    "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22"};

std::string Open(double width, double height, const std::string& title) {
  return FormatText("<svg viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" role=\"img\">", width, height,
                    width) +
         "<text class=\"title\" x=\"10\" y=\"18\">" + EscapeHtml(title) + "</text>\n";
}

std::string Text(double x, double y, const char* anchor, const std::string& text) {
  return FormatText("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor) +
         EscapeHtml(text) + "</text>\n";
}

// Maps values to the plot's units.
struct Axis {
  double low = 0.0, high = 1.0;
  bool log = false;

  [[nodiscard]] double At(double value) const {
    const double v = log ? std::log10(value) : value;
    return high > low ? (v - low) / (high - low) : 0.5;
  }
  [[nodiscard]] double Tick(int i) const {
    const double v = low + (high - low) * i / (kTicks - 1);
    return log ? std::pow(10.0, v) : v;
  }
};

Axis AxisOf(const std::vector<double>& values, bool log, bool from_zero) {
  Axis axis{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), log};
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    const double v = log ? std::log10(value) : value;
    axis.low = std::min(axis.low, v);
    axis.high = std::max(axis.high, v);
  }
  if (from_zero) axis.low = std::min(axis.low, 0.0);
  if (!std::isfinite(axis.low)) axis.low = 0.0;
  if (axis.high <= axis.low) axis.high = axis.low + 1.0;
  return axis;
}

double PlotX(const Axis& axis, double value) { return kLeft + kPlotWidth * axis.At(value); }
double PlotY(const Axis& axis, double value) { return kTop + kPlotHeight * (1.0 - axis.At(value)); }

std::string Frame(const ChartLabels& labels, const Axis& x, const Axis& y) {
  std::string svg =
      FormatText("<rect class=\"frame\" x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\"/>\n",
                 kLeft, kTop, kPlotWidth, kPlotHeight);
  for (int i = 0; i < kTicks; ++i) {
    svg +=
        Text(PlotX(x, x.Tick(i)), kTop + kPlotHeight + 16, "middle", FormatText("%.3g", x.Tick(i)));
    svg += Text(kLeft - 6, PlotY(y, y.Tick(i)) + 4, "end", FormatText("%.3g", y.Tick(i)));
  }
  svg += Text(kLeft + kPlotWidth / 2, kTop + kPlotHeight + 36, "middle", labels.x);
  svg += FormatText("<g transform=\"translate(16 %.0f) rotate(-90)\">", kTop + kPlotHeight / 2) +
         Text(0, 0, "middle", labels.y) + "</g>\n";
  return svg;
}

std::string Line(const Series& series, const Axis& x, const Axis& y, size_t index) {
  const char* colour = kColours[index % std::size(kColours)];
  std::string points;
  std::string markers;
  for (const auto& [px, py] : series.points) {
    points += FormatText("%.1f,%.1f ", PlotX(x, px), PlotY(y, py));
    markers += FormatText("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"><title>",
                          PlotX(x, px), PlotY(y, py), colour) +
               EscapeHtml(series.name) + FormatText(": %.5g, %.5g</title></circle>\n", px, py);
  }
  const double legend = kTop + 8 + 15.0 * static_cast<double>(index);
  return FormatText("<polyline fill=\"none\" stroke=\"%s\" points=\"", colour) + points + "\"/>\n" +
         markers +
         FormatText("<rect x=\"%.0f\" y=\"%.0f\" width=\"10\" height=\"10\" fill=\"%s\"/>",
                    kLeft + kPlotWidth + 12, legend - 9, colour) +
         Text(kLeft + kPlotWidth + 26, legend, "start", series.name);
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string LineChart(const ChartLabels& labels, const std::vector<Series>& series, bool log_y) {
  std::vector<Series> shown;
  std::vector<double> xs, ys;
  for (const Series& one : series) {
    Series kept{one.name, {}};
    for (const auto& [x, y] : one.points) {
      if (!std::isfinite(x) || !std::isfinite(y) || (log_y && y <= 0.0)) continue;
      kept.points.emplace_back(x, y);
      xs.push_back(x);
      ys.push_back(y);
    }
    if (!kept.points.empty()) shown.push_back(std::move(kept));
  }
  if (shown.empty()) return {};
  const Axis x = AxisOf(xs, false, true);
  const Axis y = AxisOf(ys, log_y, !log_y);
  const double height = std::max(kHeight, kTop + 20 + 15.0 * static_cast<double>(shown.size()));
  std::string svg = Open(kWidth, height, labels.title) + Frame(labels, x, y);
  for (size_t i = 0; i < shown.size(); ++i) svg += Line(shown[i], x, y, i);
  return svg + "</svg>\n";
}

std::string BarChart(const ChartLabels& labels, const std::vector<double>& values) {
  if (values.empty()) return {};
  const Axis x{0.0, static_cast<double>(values.size()), false};
  const Axis y = AxisOf(values, false, true);
  std::string svg = Open(kWidth, kHeight, labels.title) + Frame(labels, x, y);
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) continue;
    const double left = PlotX(x, static_cast<double>(i));
    const double top = PlotY(y, values[i]);
    svg += FormatText(
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"><title>%zu: "
        "%.5g</title></rect>\n",
        left + 1, top, std::max(1.0, kPlotWidth / static_cast<double>(values.size()) - 2),
        kTop + kPlotHeight - top, kColours[0], i, values[i]);
  }
  return svg + "</svg>\n";
}

std::string HeatMap(const HeatMapLabels& labels,
                    const std::vector<std::vector<double>>& values,
                    double most) {
  size_t columns = 0;
  for (const auto& row : values) columns = std::max(columns, row.size());
  if (columns == 0) return {};
  const double width = std::clamp(420.0 / static_cast<double>(columns), 6.0, 48.0);
  const double height = std::clamp(480.0 / static_cast<double>(values.size()), 10.0, 24.0);
  const double bottom = kTop + 16 + height * static_cast<double>(values.size());
  std::string svg = Open(kWidth, bottom + 40, labels.chart.title);
  for (size_t r = 0; r < values.size(); ++r) {
    const double y = kTop + height * static_cast<double>(r);
    const std::string name = r < labels.rows.size() ? labels.rows[r] : std::to_string(r);
    svg += Text(kLeft - 6, y + height / 2 + 4, "end", name);
    for (size_t c = 0; c < values[r].size(); ++c) {
      const bool known = std::isfinite(values[r][c]);
      const double share = known && most > 0.0 ? std::clamp(values[r][c] / most, 0.0, 1.0) : 0.0;
      svg += FormatText(
          "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
          "fill=\"hsl(215,70%%,%.0f%%)\"><title>%s</title></rect>\n",
          kLeft + width * static_cast<double>(c), y, width - 1, height - 1, 96.0 - 66.0 * share,
          known ? FormatText("%.5g", values[r][c]).c_str() : "no value");
    }
  }
  for (size_t c = 0; c < columns; ++c) {
    const std::string name = c < labels.columns.size() ? labels.columns[c] : std::to_string(c);
    svg += Text(kLeft + width * (static_cast<double>(c) + 0.5), bottom, "middle", name);
  }
  svg += Text(kLeft, bottom + 18, "start", labels.chart.x);
  svg += FormatText("<g transform=\"translate(16 %.0f) rotate(-90)\">", (kTop + bottom) / 2) +
         Text(0, 0, "middle", labels.chart.y) + "</g>\n";
  return svg + "</svg>\n";
}

}  // namespace kvc::report
