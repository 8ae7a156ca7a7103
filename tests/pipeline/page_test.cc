// The page: blocks in their order, charts as data, one point as a number, text as text.

#include "pipeline/report/page.h"

#include <cmath>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "pipeline/report/escape.h"

namespace kvc::report {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

Chart WithPoints(std::vector<std::pair<double, double>> points) {
  Chart chart{"bytes", {"tokens", Unit::kTokens}, {"allocated", Unit::kBytes}};
  chart.series.push_back({"a", std::move(points)});
  return chart;
}

TEST(Escape, TextBecomesNeitherMarkupNorTheEndOfAScript) {
  EXPECT_EQ(EscapeHtml("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  const std::string json = R"({"a": "</script><!--"})";
  EXPECT_EQ(EscapeScriptJson(json).find('<'), std::string::npos);
  EXPECT_EQ(Json::parse(EscapeScriptJson(json)), Json::parse(json));
}

// printf '' | openssl dgst -sha256 -binary | base64
TEST(Escape, HashesScriptsAsAPolicyWantsThem) {
  EXPECT_EQ(ScriptHash(""), "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='");
  EXPECT_EQ(ScriptHash("abc"), "'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='");
}

TEST(Chart, LeavesOutWhatCannotBeDrawn) {
  Chart chart = WithPoints({{0.0, 1.0}, {1.0, NAN}, {2.0, kInfinity}, {4.0, 3.0}});
  chart.series.push_back({"empty", {{0.0, NAN}}});
  EXPECT_EQ(CountPoints(Drawable(chart)), 2U);
  EXPECT_EQ(Drawable(chart).series.size(), 1U);
  chart.x.scale = Scale::kHalvings;  // 0 has no place
  EXPECT_EQ(CountPoints(Drawable(chart)), 1U);
  chart.series[0].points = {{1.0, -1.0}, {1.0, 2.0}};
  chart.y.scale = Scale::kLog;
  EXPECT_EQ(CountPoints(Drawable(chart)), 1U);
}

TEST(Page, AChartOfOnePointIsANumber) {
  Page page("title", {});
  page.AddChart(WithPoints({}));
  EXPECT_EQ(Count(page.ToHtml(), "<figure"), 0U);
  page.AddChart(WithPoints({{2048.0, 1048576.0}, {4096.0, NAN}}));
  const std::string html = page.ToHtml();
  EXPECT_EQ(Count(html, "<canvas"), 0U);
  EXPECT_EQ(Count(html, "<b>1.0 MiB</b> <span>a; allocated, at 2K tokens</span>"), 1U);
}

TEST(Page, HasACanvasForEachChart) {
  Page page("title", {});
  for (int i = 0; i < 3; ++i) page.AddChart(WithPoints({{1.0, 2.0}, {2.0, 3.0}}));
  const std::string html = page.ToHtml();
  EXPECT_EQ(Count(html, "<canvas"), 3U);
  EXPECT_EQ(Count(html, "\"title\":\"bytes\""), 3U);
  EXPECT_EQ(Count(html, "id=\"chart-2\""), 1U);
}

TEST(Page, HeadingsWithNothingBelowAreLeftOut) {
  Page page("title", {});
  page.AddHeading("first");
  page.AddTable({{"a"}, {}});
  page.AddHeading("second");
  page.AddTable({{"a"}, {{"1"}}});
  const std::string html = page.ToHtml();
  EXPECT_EQ(Count(html, "<h2>first"), 0U);
  EXPECT_EQ(Count(html, "<h2>second</h2>"), 1U);
}

TEST(HeatMap, CellsHaveTheirLabelsAndValues) {
  HeatMap map{"map", "depth", "length", {"0.1", "0.9"}, {"512", "1K"}, {{1.0, 0.25}, {NAN, 0.0}},
              1.0,   true,    ""};
  const std::string html = ToHtml(map);
  EXPECT_EQ(Count(html, "style=\"--v:0.250\" title=\"depth 0.1, length 1K: 25.0 %\">25</td>"), 1U);
  EXPECT_EQ(
      Count(
          html,
          "class=\"unknown\" style=\"--v:0.000\" title=\"depth 0.9, length 512: no value\"></td>"),
      1U);
  map.values = {{}, {}};
  EXPECT_EQ(ToHtml(map), "");
}

TEST(HeatMap, ManyColumnsAreLabelledInRoundSteps) {
  HeatMap map{"map", "heads", "layer", {"0"}, {}, {{}}, 1.0, false, ""};
  for (int i = 0; i < 80; ++i) {
    map.columns.push_back(std::to_string(i));
    map.values[0].push_back(0.5);
  }
  const std::string html = ToHtml(map);
  EXPECT_EQ(Count(html, "scope=\"col\""), 16U);  // every fifth
  EXPECT_EQ(Count(html, "<th colspan=\"5\" scope=\"col\">75</th>"), 1U);
}

}  // namespace
}  // namespace kvc::report
