#pragma once
// Charts as data, which page/page.js draws with Chart.js in the reader's browser.

#include <string>
#include <utility>
#include <vector>

#include "core/io/json_fwd.h"

namespace kvc::report {

// Units say how ticks and values are written: a share is kept as 0 to 1 and shown in percent, bytes
// in a unit that fits the axis, tokens as 512, 1K, 2K.
enum class Unit { kNumber, kShare, kTokens, kBytes, kCount };
// Halvings is a logarithmic axis with the ticks 100 %, 50 %, 25 %, ... of a share.
enum class Scale { kLinear, kLog, kHalvings };

struct Axis {
  std::string label;
  Unit unit = Unit::kNumber;
  Scale scale = Scale::kLinear;
};

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending
  int run = 0;                                    // of two reports: the second one is dashed
  std::string group = {};  // series of one group have one colour; empty: the name
};

struct Chart {
  std::string title;
  Axis x, y;
  std::vector<Series> series = {};
  bool bars = false;      // instead of lines with points
  bool markers = true;    // of lines
  bool filled = false;    // the first and the last series are the edges of an area
  std::string note = {};  // below the chart: what it is of
};

// Returns the chart without what cannot be drawn: NaN, infinity, on logarithmic axes values that
// are not positive, and series that are left without points.
[[nodiscard]] Chart Drawable(Chart chart);
// Returns the number of points of all series.
[[nodiscard]] size_t CountPoints(const Chart& chart);
// Returns the value as the axis writes it.
[[nodiscard]] std::string ValueText(double value, const Axis& axis);

// Returns the keys that page/page.js reads.
[[nodiscard]] Json ToJson(const Chart& chart);

}  // namespace kvc::report
