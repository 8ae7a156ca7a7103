// The report of results: what is in the files is in the tables, once and in a cell of its own.

#include "pipeline/report/report.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "pipeline/report/html_report.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::report {
namespace {

namespace fs = std::filesystem;

Json Frame() {
  return {
      {"kvc", "0.1.0"}, {"command", "kvc-eval"}, {"seconds", 1.25}, {"peak_rss_bytes", 1 << 20}};
}

Json Cache(int64_t allocated) {
  return {{"full_bytes", 1000},
          {"logical_bytes", allocated},
          {"allocated_bytes", allocated},
          {"peak_bytes", 1000 + allocated}};
}

Json Kld(double perplexity, double against, int64_t allocated = 250) {
  Json json = Frame();
  json.update({{"kld_mean", 0.3},
               {"same_top", 0.875},
               {"perplexity", perplexity},
               {"perplexity_against", against},
               {"cache", Cache(allocated)},
               {"cache_against", Cache(1000)}});
  return json;
}

Json Ppl(double perplexity) {
  Json json = Frame();
  json.update({{"perplexity", perplexity}, {"nll", 3.0}, {"stderr", 0.5}, {"cache", Cache(500)}});
  return json;
}

Json Needle(double accuracy) {
  Json json = Frame();
  json["accuracy"] = accuracy;
  json["cells"] = {{{"length", 512}, {"depth", 0.1}, {"accuracy", 1.0}, {"samples", 4}},
                   {{"length", 512}, {"depth", 0.9}, {"accuracy", 0.5}, {"samples", 4}}};
  return json;
}

// The charts in a page's block of data, by title.
std::map<std::string, Json> ChartsOf(const std::string& html) {
  const std::string begin = "<script type=\"application/json\" id=\"data\">";
  const size_t at = html.find(begin) + begin.size();
  std::map<std::string, Json> charts;
  const Json data = Json::parse(html.substr(at, html.find("</script>", at) - at));
  for (const Json& chart : data["charts"]) charts[chart["title"].get<std::string>()] = chart;
  return charts;
}

// The points of a chart's series; null where there is none of that name.
Json PointsOf(const Json& chart, const std::string& series) {
  for (const Json& one : chart["series"]) {
    if (one["name"] == series) return one["points"];
  }
  return nullptr;
}

class ReportTest : public ::testing::Test {
 protected:
  void Add(const std::string& name, const Json& json) {
    WriteJsonFile(dir_ / (name + ".json"), json);
  }
  // The text in the quality table's cell; "" where there is no such row or column.
  [[nodiscard]] std::string Cell(const std::string& row, const std::string& column) const {
    const Table table = QualityTable(ReadResults(dir_.path()));
    for (const auto& cells : table.rows) {
      for (size_t c = 1; c < cells.size(); ++c) {
        if (cells[0] == row && table.heading[c] == column) return cells[c];
      }
    }
    return "";
  }
  [[nodiscard]] std::vector<std::string> Columns() const {
    const Table table = QualityTable(ReadResults(dir_.path()));
    return {table.heading.begin() + 1, table.heading.end()};
  }
  testing::TempDir dir_;
};

TEST_F(ReportTest, ShowsEveryResultByNameWhateverTheirTimes) {
  for (const char* name : {"c", "a", "b"}) Add(name, Frame());
  const std::string table = ReportTables(dir_.path());
  EXPECT_EQ(table,
            "| step | command | seconds | peak memory |\n|---|---|---|---|\n"
            "| a | kvc-eval | 1.2 | 1.0 MiB |\n| b | kvc-eval | 1.2 | 1.0 MiB |\n"
            "| c | kvc-eval | 1.2 | 1.0 MiB |\n");
  const auto now = fs::last_write_time(dir_ / "a.json");
  for (const char* name : {"a", "b", "c"})
    fs::last_write_time(dir_ / (std::string(name) + ".json"), now);
  EXPECT_EQ(ReportTables(dir_.path()), table);
  fs::last_write_time(dir_ / "a.json", now + std::chrono::hours(1));
  EXPECT_EQ(ReportTables(dir_.path()), table);
}

TEST_F(ReportTest, ResultsOfOneBundleShareAColumn) {
  Add("kld-quarter", Kld(21.5, 20.25));
  Add("needle-full", Needle(1.0));
  Add("needle-quarter", Needle(0.75));
  Add("ppl-quarter", Ppl(19.125));
  Json factorize = Frame();
  factorize.update({{"perplexity", 37.9}, {"perplexity_source", 36.5}});
  Add("factorize", factorize);
  EXPECT_EQ(Columns(), (std::vector<std::string>{"full", "quarter"}));
  EXPECT_EQ(Cell("perplexity", "full"), "20.250");
  EXPECT_EQ(Cell("perplexity", "quarter"), "21.500");
  EXPECT_EQ(Cell("perplexity (kvc-eval ppl)", "quarter"), "19.125");
  EXPECT_EQ(Cell("perplexity (kvc-eval ppl)", "full"), "-");
  EXPECT_EQ(Cell("nats per token (kvc-eval ppl)", "quarter"), "3.0000 +- 0.5000");
  EXPECT_EQ(Cell("KL divergence to full (nats)", "quarter"), "0.3000");
  EXPECT_EQ(Cell("KL divergence to full (nats)", "full"), "-");
  EXPECT_EQ(Cell("same most probable token", "quarter"), "87.5 %");
  EXPECT_EQ(Cell("cache allocated", "quarter"), "250 B (25.0 %)");
  EXPECT_EQ(Cell("cache allocated", "full"), "1000 B (100.0 %)");
  EXPECT_EQ(Cell("cache allocated (kvc-eval ppl)", "quarter"), "500 B (50.0 %)");
  EXPECT_EQ(Cell("needles found", "quarter"), "75.0 %");
  EXPECT_EQ(Cell("- at 512 tokens", "quarter"), "75.0 %");
}

TEST_F(ReportTest, NamesThatEndAlikeHaveColumnsOfTheirOwn) {
  Add("kld-uniform-25", Kld(31.0, 20.5));
  Add("kld-lukv-25", Kld(22.0, 20.5));
  Add("needle-lukv-25", Needle(0.5));
  Add("ppl-other", Ppl(18.0));
  EXPECT_EQ(Cell("perplexity", "uniform-25"), "31.000");
  EXPECT_EQ(Cell("perplexity", "lukv-25"), "22.000");
  EXPECT_EQ(Cell("needles found", "lukv-25"), "50.0 %");
  EXPECT_EQ(Cell("needles found", "uniform-25"), "-");
  EXPECT_EQ(Cell("perplexity (kvc-eval ppl)", "other"), "18.000");
}

// "25" ends both names, and is the whole of one.
TEST_F(ReportTest, ANameMayBeTheEndOfAnother) {
  Add("25", Kld(31.0, 20.5));
  Add("kld-25", Kld(22.0, 20.5));
  EXPECT_EQ(Cell("perplexity", "25"), "31.000");
  EXPECT_EQ(Cell("perplexity", "kld-25"), "22.000");
}

TEST_F(ReportTest, EachReferenceIsShown) {
  Add("kld-book", Kld(18.75, 17.5));
  Add("kld-wiki", Kld(60.25, 55.125));
  EXPECT_EQ(Cell("perplexity", "full of book"), "17.500");
  EXPECT_EQ(Cell("perplexity", "full of wiki"), "55.125");
  EXPECT_EQ(Cell("perplexity", "book"), "18.750");
  EXPECT_EQ(Cell("perplexity", "full"), "");
}

TEST_F(ReportTest, AResultThatIsCalledFullIsNotTheReference) {
  Add("kld-full", Kld(18.75, 17.5));
  EXPECT_EQ(Cell("perplexity", "full"), "18.750");
  EXPECT_EQ(Cell("perplexity", "full of full"), "17.500");
}

TEST_F(ReportTest, TasksHaveRowsOfTheirOwn) {
  for (const char* name : {"ruler-quarter", "lines-quarter"}) {
    Json json = Frame();
    json["score"] = name[0] == 'r' ? 0.5 : 0.25;
    json["cells"] = {
        {{"task", "single"}, {"length", 512}, {"score", 0.5}, {"stderr", 0.125}, {"samples", 3}}};
    Add(name, json);
  }
  EXPECT_EQ(Cell("ruler score", "quarter"), "50.0 %");
  EXPECT_EQ(Cell("lines score", "quarter"), "25.0 %");
}

TEST_F(ReportTest, PassesOverOtherFilesAndRefusesBrokenOnes) {
  EXPECT_KVC_ERROR((void)ReportTables(dir_.path()), kBadInput, "got none");
  EXPECT_KVC_ERROR((void)HtmlReport(dir_.path()), kBadInput, "got none");
  Add("a", Frame());
  Add("list", Json::array({1, 2}));
  Add("config", {{"model_type", "llama"}});
  WriteFile(dir_ / "notes.txt", "{");
  EXPECT_EQ(ReadResults(dir_.path()).size(), 1U);
  Json wrong = Kld(1.0, 1.0);
  wrong["kld_mean"] = "much";
  Add("wrong", wrong);
  EXPECT_KVC_ERROR((void)ReportTables(dir_.path()), kBadInput, "kld_mean");
  WriteFile(dir_ / "wrong.json", "{");
  EXPECT_KVC_ERROR((void)ReportTables(dir_.path()), kBadInput, "wrong.json");
}

TEST(Table, EscapesItsCells) {
  const Table table{{"a|b", "<c>"}, {{"1", "x\ny"}, {"2"}}};
  EXPECT_EQ(ToMarkdown(table), "| a\\|b | <c> |\n|---|---|\n| 1 | x y |\n| 2 |\n");
  EXPECT_EQ(ToHtml(table),
            "<table>\n<tr><th>a|b</th><th>&lt;c&gt;</th></tr>\n<tr><td>1</td><td>x\ny</td></tr>\n"
            "<tr><td>2</td></tr>\n</table>\n");
  EXPECT_EQ(ToMarkdown({{"a"}, {}}), "");
  EXPECT_EQ(ToHtml({{"a"}, {}}), "");
}

TEST_F(ReportTest, HtmlHoldsWhatTheTablesHold) {
  Add("kld-quarter", Kld(21.5, 20.25));
  Add("needle-quarter", Needle(0.75));
  Add("ppl-full", Ppl(19.125));
  const std::string html = HtmlReport(dir_.path());
  for (const Table& table :
       {StageTable(ReadResults(dir_.path())), QualityTable(ReadResults(dir_.path()))}) {
    EXPECT_NE(html.find(ToHtml(table)), std::string::npos) << ToHtml(table);
  }
  EXPECT_EQ(html, HtmlReport(dir_.path()));
  EXPECT_NE(html.find("quarter keeps 25.0&nbsp;% of the full cache&#39;s bytes"),
            std::string::npos);
  EXPECT_TRUE(ChartsOf(html).empty());  // one bundle is no chart
  EXPECT_NE(html.find("Needles: needle-quarter, 75.0 % found"), std::string::npos);
  EXPECT_EQ(html.find("nan"), std::string::npos);
}

TEST_F(ReportTest, HtmlShowsComparisonsGatesLayersAndBudgets) {
  fs::create_directories(dir_ / "results");
  const fs::path results = dir_ / "results";
  Json compare;  // as kvc-eval compare -o writes it, without a command
  compare["lines"] = {
      {{"name", "full"}, {"budget", "100%"}, {"prompt_share", 1.0}, {"perplexity", 20.0}},
      {{"name", "ada <x>"},
       {"budget", "25%"},
       {"prompt_share", 0.25},
       {"kld_mean", 0.125},
       {"perplexity", 21.0}},
      {{"name", "ada <x>"}, {"budget", "12%"}, {"prompt_share", 0.12}, {"kld_mean", 0.5}}};
  compare["impossible"] = {{{"name", "lukv"}, {"budget", "3%"}, {"reason", "too small"}}};
  compare["gates"] = {
      {{"line", "ada"}, {"name", "max-kld"}, {"limit", 0.1}, {"value", 0.125}, {"passed", false}}};
  WriteJsonFile(results / "both.json", compare);
  Json thin = Frame();
  thin["layers"] = {{{"rank", 8}, {"spectra", {{4.0, 2.0, 1.0}}}}, {{"rank", 16}}};
  WriteJsonFile(results / "thin.json", thin);
  fs::create_directories(dir_ / "bundle");
  WriteJsonFile(dir_ / "bundle/manifest.json",
                {{"budget", "25%"},
                 {"cache",
                  {{"method", "lukv"},
                   {"budget", {{"unit", "tokens"}, {"values", {{64, 128}, {32, 96}}}}}}}});
  const std::string html = HtmlReport(dir_.path());
  for (const char* text :
       {"Comparison: both", "impossible: too small",
        "<td>both: ada</td><td>max-kld</td><td>0.1</td><td>0.125</td><td>FAILED</td>",
        "1 of 1 quality gates FAILED: both max-kld.", "Budgets: bundle (lukv, 25%)",
        "title=\"heads 1, layer 0: 128\"", "<td>both</td><td>kvc-eval compare -o</td><td>-</td>"}) {
    EXPECT_NE(html.find(text), std::string::npos) << text;
  }
  const auto charts = ChartsOf(html);
  EXPECT_EQ(PointsOf(charts.at("Divergence from the full cache"), "ada <x>"),
            Json::parse("[[0.12, 0.5], [0.25, 0.125]]"));
  EXPECT_EQ(PointsOf(charts.at("Perplexity"), "full"), Json::parse("[[1.0, 20.0]]"));
  EXPECT_EQ(PointsOf(charts.at("Key ranks: thin"), "thin"),
            Json::parse("[[0.0, 8.0], [1.0, 16.0]]"));
  EXPECT_EQ(PointsOf(charts.at("Spectrum of the first group: thin"), "layer 0"),
            Json::parse("[[0.0, 1.0], [1.0, 0.5], [2.0, 0.25]]"));
  EXPECT_EQ(charts.count("Needles found"), 0U);
  EXPECT_EQ(html.find("ada <x>"), std::string::npos);
  EXPECT_EQ(HtmlReport(results), html);  // from the folder beside the bundles
  EXPECT_EQ(ResultsFolder(dir_.path()), results);
  EXPECT_EQ(ResultsFolder(results), results);
}

// Names come from files: none may become markup, end the block of data, or load anything.
TEST_F(ReportTest, NamesOfFilesStayText) {
  const std::string hostile = "</script><img src=x onerror=alert(1)>";
  Json compare = Frame();
  compare["lines"] = {
      {{"name", "full"}, {"budget", "100%"}, {"prompt_share", 1.0}, {"perplexity", 20.0}},
      {{"name", hostile}, {"budget", hostile}, {"prompt_share", 0.5}, {"kld_mean", 0.1}},
      {{"name", hostile}, {"budget", "25%"}, {"prompt_share", 0.25}, {"kld_mean", 0.2}}};
  Add("<img src=x onerror=alert(2)>", compare);
  fs::create_directories(dir_ / "<b>\xff");  // and no UTF-8
  WriteJsonFile(
      dir_ / "<b>\xff/manifest.json",
      {{"budget", hostile},
       {"cache", {{"method", hostile}, {"budget", {{"unit", hostile}, {"values", {{1}}}}}}},
       {"expected_bytes",
        {{{"length", 512}, {"full_bytes", 4}, {"allocated_bytes", 2}},
         {{"length", 1024}, {"full_bytes", 8}, {"allocated_bytes", 4}}}}});
  const std::string html = HtmlReport(dir_.path());
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_EQ(html.find("<b>\xff"), std::string::npos);
  size_t ends = 0;
  for (size_t at = html.find("</script"); at != std::string::npos;
       at = html.find("</script", at + 1)) {
    ++ends;
  }
  EXPECT_EQ(ends, 3U);  // Chart.js, the data, the page's own
  const auto charts = ChartsOf(html);
  EXPECT_FALSE(PointsOf(charts.at("Divergence from the full cache"), hostile).is_null());
  EXPECT_EQ(charts.count("Cache memory behind a prompt"), 1U);
}

TEST_F(ReportTest, HtmlNeedsNothingElse) {
  Add("kld-quarter", Kld(21.5, 20.25));
  const std::string html = HtmlReport(dir_.path());
  for (const char* text :
       {"<link", "<iframe", "<img", " src=", "@import", "url(", "fetch(", "XMLHttpRequest"}) {
    EXPECT_EQ(html.find(text), std::string::npos) << text;
  }
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
  EXPECT_NE(html.find("Permission is hereby granted"), std::string::npos);
}

TEST_F(ReportTest, KnowsItsOwnReports) {
  Add("a", Frame());
  WriteFile(dir_ / "report.html", HtmlReport(dir_.path()));
  WriteFile(dir_ / "mine.html", "<html><title>My notes</title></html>");
  EXPECT_TRUE(IsReport(dir_ / "report.html"));
  EXPECT_FALSE(IsReport(dir_ / "mine.html"));
  EXPECT_FALSE(IsReport(dir_ / "none.html"));
  EXPECT_FALSE(IsReport(dir_.path()));
}

}  // namespace
}  // namespace kvc::report
