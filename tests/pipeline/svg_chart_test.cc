#include "pipeline/report/svg_chart.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <regex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace kvc::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
const ChartLabels kLabels{"<t>", "x", "y"};

// What the expression's first group matches, in order.
std::vector<std::string> AllOf(const std::string& text, const char* expression) {
  const std::regex regex(expression);
  std::vector<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end; ++it) {
    found.push_back((*it)[1]);
  }
  return found;
}

// No attribute and no text holds a number that is none, however it is printed.
void ExpectOnlyNumbers(const std::string& svg) {
  std::string small = svg;
  std::ranges::transform(small, small.begin(), [](unsigned char c) { return std::tolower(c); });
  EXPECT_EQ(small.find("nan"), std::string::npos) << svg;
  EXPECT_EQ(small.find("inf"), std::string::npos) << svg;
}

TEST(SvgChart, EscapesHtml) { EXPECT_EQ(EscapeHtml("a<b>&\"c'"), "a&lt;b&gt;&amp;&quot;c&#39;"); }

TEST(LineChart, PlacesPointsOnLinearAxesFromZero) {
  const std::string svg =
      LineChart(kLabels, {{"<s>", {{0.0, 2.0}, {5.0, 4.0}, {10.0, 0.0}}}}, false);
  // The plot spans x 70 to 430 and y 264 (bottom) to 34.
  EXPECT_EQ(AllOf(svg, "points=\"([^\"]*)\""),
            std::vector<std::string>{"70.0,149.0 250.0,34.0 430.0,264.0 "});
  EXPECT_EQ(AllOf(svg, "<circle cx=\"([^\"]*)\""),
            (std::vector<std::string>{"70.0", "250.0", "430.0"}));
  EXPECT_NE(svg.find("&lt;s&gt;: 5, 4</title>"), std::string::npos);
  EXPECT_EQ(svg.find("<s>"), std::string::npos);
  EXPECT_EQ(svg.find("<t>"), std::string::npos);
}

TEST(LineChart, PlacesPointsOnALogarithmicAxis) {
  const std::string svg = LineChart(kLabels, {{"s", {{0.0, 0.01}, {1.0, 0.1}, {2.0, 1.0}}}}, true);
  EXPECT_EQ(AllOf(svg, "points=\"([^\"]*)\""),
            std::vector<std::string>{"70.0,264.0 250.0,149.0 430.0,34.0 "});
}

TEST(LineChart, LeavesOutWhatHasNoPlace) {
  EXPECT_EQ(LineChart(kLabels, {}, false), "");
  EXPECT_EQ(LineChart(kLabels, {{"a", {{1.0, 0.0}, {2.0, kNan}, {3.0, -1.0}}}}, true), "");
  const std::string svg = LineChart(
      kLabels, {{"gone", {{kNan, 1.0}}}, {"s", {{1.0, 2.0}, {2.0, kInfinity}, {3.0, 4.0}}}}, false);
  EXPECT_EQ(AllOf(svg, "<circle cx=\"([^\"]*)\"").size(), 2U);
  EXPECT_EQ(svg.find("gone"), std::string::npos);
  ExpectOnlyNumbers(svg);
  // One point, and equal points, stay on the plot.
  ExpectOnlyNumbers(LineChart(kLabels, {{"s", {{0.0, 5.0}}}}, true));
  ExpectOnlyNumbers(LineChart(kLabels, {{"s", {{1.0, 0.0}, {1.0, 0.0}}}}, false));
}

TEST(BarChart, HasABarOfItsHeightForEachValue) {
  const std::string svg = BarChart(kLabels, {4.0, 1.0, kNan, 2.0});
  EXPECT_EQ(AllOf(svg, "height=\"([0-9.]*)\" fill"),
            (std::vector<std::string>{"230.0", "57.5", "115.0"}));
  EXPECT_EQ(AllOf(svg, "<title>(\\d): "), (std::vector<std::string>{"0", "1", "3"}));
  ExpectOnlyNumbers(svg);
  EXPECT_EQ(BarChart(kLabels, {}), "");
  ExpectOnlyNumbers(BarChart(kLabels, {0.0, 0.0}));
  ExpectOnlyNumbers(BarChart(kLabels, {kNan}));
}

TEST(HeatMap, IsDarkestAtTheMostAndSaysItsValues) {
  const std::string svg =
      HeatMap({kLabels, {"top", "<r>"}, {}}, {{0.0, 1.0, 2.0}, {4.0, 8.0, kNan}}, 4.0);
  EXPECT_EQ(AllOf(svg, "hsl\\(215,70%,([^)]*)\\)"),
            (std::vector<std::string>{"96%", "80%", "63%", "30%", "30%", "96%"}));
  EXPECT_EQ(AllOf(svg, "<title>([^<]*)</title>"),
            (std::vector<std::string>{"0", "1", "2", "4", "8", "no value"}));
  EXPECT_NE(svg.find(">top</text>"), std::string::npos);
  EXPECT_NE(svg.find(">&lt;r&gt;</text>"), std::string::npos);
  ExpectOnlyNumbers(svg);
}

TEST(HeatMap, TakesRowsOfAnyLengthAndNoRange) {
  EXPECT_EQ(HeatMap({kLabels, {}, {}}, {}, 1.0), "");
  EXPECT_EQ(HeatMap({kLabels, {}, {}}, {{}, {}}, 1.0), "");
  for (const double most : {0.0, kNan, -1.0}) {
    const std::string svg = HeatMap({kLabels, {}, {}}, {{0.0, 1.0}, {kInfinity}}, most);
    EXPECT_EQ(AllOf(svg, "hsl\\(215,70%,([^)]*)\\)"),
              (std::vector<std::string>{"96%", "96%", "96%"}));
    ExpectOnlyNumbers(svg);
  }
}

}  // namespace
}  // namespace kvc::report
