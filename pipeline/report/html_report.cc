#include "pipeline/report/html_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <vector>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/base/version.h"
#include "core/io/json.h"
#include "pipeline/report/report.h"
#include "pipeline/report/svg_chart.h"

namespace kvc::report {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHead = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>kvc report</title><style>
body { font: 14px/1.5 sans-serif; max-width: 76em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { border: 1px solid #ccc; padding: 2px 8px; text-align: left }
th { background: #f4f4f4 } svg { display: block; margin: 1.5em 0; font: 11px sans-serif } .title { font-weight: bold; font-size: 13px }
.frame { fill: none; stroke: #999 } .failed { color: #b00; font-weight: bold }
</style></head><body>
)";

std::string Number(double value, const char* format = "%.4g") {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

std::string Percent(double share) { return Number(100.0 * share, "%.1f %%"); }

// Rows of cells; the first row is the heading.
std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<table>\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    html += "<tr>";
    const std::string cell = r == 0 ? "th" : "td";
    for (const std::string& text : rows[r]) {
      html += "<" + cell + ">" + EscapeHtml(text) + "</" + cell + ">";
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

// Our own Markdown tables, whose cells hold no '|'.
std::string TablesOf(const std::string& markdown) {
  std::string html;
  std::vector<std::vector<std::string>> rows;
  const auto flush = [&] {
    if (!rows.empty()) html += Table(rows);
    rows.clear();
  };
  size_t begin = 0;
  while (begin < markdown.size()) {
    const size_t end = std::min(markdown.find('\n', begin), markdown.size());
    const std::string line = markdown.substr(begin, end - begin);
    begin = end + 1;
    if (!line.starts_with('|')) {
      flush();
      continue;
    }
    if (line.starts_with("|---")) continue;
    auto& cells = rows.emplace_back();
    for (size_t at = 1; at < line.size();) {
      const size_t bar = std::min(line.find('|', at), line.size());
      const std::string cell = line.substr(at, bar - at);
      const size_t first = cell.find_first_not_of(' ');
      cells.push_back(first == std::string::npos
                          ? ""
                          : cell.substr(first, cell.find_last_not_of(' ') - first + 1));
      at = bar + 1;
    }
  }
  flush();
  return html;
}

struct Result {
  std::string name;
  Json json;
};

// By name, those of kvc's commands or of `kvc-eval compare -o` only.
std::vector<Result> ReadResults(const fs::path& directory) {
  std::map<std::string, fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".json") files[entry.path().stem().string()] = entry.path();
  }
  std::vector<Result> results;
  for (const auto& [name, path] : files) {
    Json json = ReadJsonFile(path);
    if (json.is_object() && (json.contains("command") || json.contains("lines"))) {
      results.push_back({name, std::move(json)});
    }
  }
  return results;
}

double DoubleOr(const Json& json, const char* key, double fallback) {
  return json.contains(key) && json[key].is_number() ? json[key].get<double>() : fallback;
}

// ---- comparisons

// A point of each line for "KEY against cache bytes", a series for each policy. The reference, the
// first line, is left out of divergences, where it has none.
std::vector<Series> SeriesOf(const Json& lines, const char* key, bool with_reference) {
  std::vector<Series> series;
  for (size_t i = with_reference ? 0 : 1; i < lines.size(); ++i) {
    const Json& line = lines[i];
    if (!line.contains(key) || !line.contains("prompt_share")) continue;
    const std::string name = line.value("name", "");
    auto at = std::ranges::find(series, name, &Series::name);
    if (at == series.end()) at = series.insert(at, {name, {}});
    at->points.emplace_back(100.0 * line["prompt_share"].get<double>(), line[key].get<double>());
  }
  for (Series& one : series) std::ranges::sort(one.points);
  return series;
}

std::string CompareTable(const Json& result) {
  const Json& lines = result["lines"];
  std::vector<std::vector<std::string>> rows = {{"policy", "budget", "bytes", "KLD", "+-", "median",
                                                 "99.9 %", "perplexity", "same top", "needles",
                                                 "ruler"}};
  const auto cell = [](const Json& line, const char* key, const char* format, double scale = 1.0) {
    return line.contains(key) ? Number(scale * DoubleOr(line, key, std::nan("")), format) : "-";
  };
  for (const Json& line : lines) {
    rows.push_back({line.value("name", ""), line.value("budget", ""),
                    cell(line, "prompt_share", "%.1f %%", 100.0), cell(line, "kld_mean", "%.4f"),
                    cell(line, "kld_stderr", "%.4f"), cell(line, "kld_median", "%.4f"),
                    cell(line, "kld_p999", "%.3f"), cell(line, "perplexity", "%.3f"),
                    cell(line, "same_top", "%.1f %%", 100.0),
                    cell(line, "needle_accuracy", "%.1f %%", 100.0),
                    cell(line, "ruler_score", "%.1f %%", 100.0)});
  }
  for (const Json& line : result.value("impossible", Json::array())) {
    rows.push_back({line.value("name", ""), line.value("budget", ""),
                    "impossible: " + line.value("reason", "")});
  }
  return Table(rows);
}

std::string Comparison(const Result& result) {
  const Json& lines = result.json["lines"];
  const char* bytes = "cache after the prompt, % of the full cache's bytes";
  return "<h2>Comparison: " + EscapeHtml(result.name) + "</h2>\n" + CompareTable(result.json) +
         LineChart({"Divergence from the full cache", bytes, "KLD, nats (log)"},
                   SeriesOf(lines, "kld_mean", false), true) +
         LineChart({"Perplexity", bytes, "perplexity (log)"}, SeriesOf(lines, "perplexity", true),
                   true) +
         LineChart({"Needles found", bytes, "share"}, SeriesOf(lines, "needle_accuracy", true),
                   false) +
         LineChart({"RULER-style tasks", bytes, "mean score"}, SeriesOf(lines, "ruler_score", true),
                   false);
}

// All kld results in one chart: bytes against divergence.
std::string Divergences(const std::vector<Result>& results) {
  std::vector<Series> kld, perplexity;
  for (const Result& result : results) {
    if (!result.json.contains("kld_mean") || !result.json.contains("cache")) continue;
    const Json& cache = result.json["cache"];
    const double share =
        100.0 * DoubleOr(cache, "allocated_bytes", 0.0) / DoubleOr(cache, "full_bytes", 1.0);
    kld.push_back({result.name, {{share, DoubleOr(result.json, "kld_mean", 0.0)}}});
    perplexity.push_back({result.name, {{share, DoubleOr(result.json, "perplexity", 0.0)}}});
    perplexity.push_back(
        {result.name + ": reference", {{100.0, DoubleOr(result.json, "perplexity_against", 0.0)}}});
  }
  if (kld.empty()) return {};
  const char* bytes = "cache, % of the full cache's bytes";
  return "<h2>Divergence</h2>\n" +
         LineChart({"Divergence from the reference", bytes, "KLD, nats"}, kld, false) +
         LineChart({"Perplexity", bytes, "perplexity"}, perplexity, false);
}

// ---- needles and tasks

std::string Needles(const Result& result) {
  std::vector<int64_t> lengths;
  std::vector<double> depths;
  for (const Json& cell : result.json["cells"]) {
    const auto length = cell["length"].get<int64_t>();
    const auto depth = cell["depth"].get<double>();
    if (std::ranges::find(lengths, length) == lengths.end()) lengths.push_back(length);
    if (std::ranges::find(depths, depth) == depths.end()) depths.push_back(depth);
  }
  std::vector<std::vector<double>> values(depths.size(),
                                          std::vector<double>(lengths.size(), std::nan("")));
  for (const Json& cell : result.json["cells"]) {
    const auto row = std::ranges::find(depths, cell["depth"].get<double>()) - depths.begin();
    const auto column = std::ranges::find(lengths, cell["length"].get<int64_t>()) - lengths.begin();
    values[row][column] = cell["accuracy"].get<double>();
  }
  HeatMapLabels labels{
      {"Needles: " + result.name + ", " + Percent(result.json["accuracy"]) + " found",
       "prompt tokens", "depth"},
      {},
      {}};
  for (const double depth : depths) labels.rows.push_back(Number(depth));
  for (const int64_t length : lengths) labels.columns.push_back(std::to_string(length));
  return HeatMap(labels, values, 1.0);
}

std::string TaskScores(const Result& result) {
  std::vector<std::vector<std::string>> rows = {{"task", "length", "score", "+-", "samples"}};
  for (const Json& cell : result.json["cells"]) {
    rows.push_back({cell.value("task", ""), cell.contains("length") ? cell["length"].dump() : "-",
                    Percent(cell["score"]), Percent(cell["stderr"]), cell["samples"].dump()});
  }
  rows.push_back({"mean", "-", Percent(result.json["score"]), "-", "-"});
  return "<h3>" + EscapeHtml(result.name) + "</h3>\n" + Table(rows);
}

// ---- what was made

std::string Factorization(const Result& result) {
  std::vector<double> ranks;
  std::vector<Series> spectra;
  const Json& layers = result.json["layers"];
  constexpr size_t kShown = 5;
  for (size_t l = 0; l < layers.size(); ++l) {
    ranks.push_back(DoubleOr(layers[l], "rank", 0.0));
    const bool shown = layers.size() <= kShown || l % ((layers.size() + kShown - 1) / kShown) == 0;
    if (!shown || !layers[l].contains("spectra") || layers[l]["spectra"].empty()) continue;
    Series one{"layer " + std::to_string(l), {}};
    const Json& energies = layers[l]["spectra"][0];
    const double first = energies.empty() ? 0.0 : energies[0].get<double>();
    for (size_t i = 0; first > 0.0 && i < energies.size(); ++i) {
      one.points.emplace_back(static_cast<double>(i), energies[i].get<double>() / first);
    }
    spectra.push_back(std::move(one));
  }
  return BarChart({"Key ranks: " + result.name, "layer", "dimensions"}, ranks) +
         LineChart({"Spectrum of the first group: " + result.name, "coordinate",
                    "energy / largest (log)"},
                   spectra, true);
}

// Budgets [layer][group] of a bundle's manifest as a heat map.
std::string Budgets(const std::string& name, const Json& manifest) {
  const Json& cache = manifest["cache"];
  if (!cache.contains("budget") || !cache["budget"].contains("values")) return {};
  std::vector<std::vector<double>> values;
  double most = 0.0;
  for (const Json& layer : cache["budget"]["values"]) {
    auto& row = values.emplace_back();
    for (const Json& value : layer) {
      row.push_back(value.get<double>());
      most = std::max(most, row.back());
    }
  }
  const std::string unit = cache["budget"].value("unit", "");
  HeatMapLabels labels{
      {"Budgets: " + name + " (" + cache.value("method", "") + ", " + manifest.value("budget", "") +
           "; " + (unit == "share" ? "share of the tokens" : unit) + ", darkest " + Number(most) +
           ")",
       "group of heads", "layer"},
      {},
      {}};
  return HeatMap(labels, values, most);
}

std::string Bundles(const fs::path& folder) {
  std::map<std::string, fs::path> manifests;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path manifest = entry.path() / "manifest.json";
    if (fs::is_regular_file(manifest)) manifests[entry.path().filename().string()] = manifest;
  }
  std::string html;
  for (const auto& [name, path] : manifests) {
    const Json manifest = ReadJsonFile(path);
    if (manifest.contains("cache")) html += Budgets(name, manifest);
  }
  return html.empty() ? html : "<h2>Budgets of the heads</h2>\n" + html;
}

std::string Gates(const std::vector<Result>& results) {
  std::vector<std::vector<std::string>> rows = {{"result", "gate", "limit", "value", ""}};
  for (const Result& result : results) {
    for (const Json& gate : result.json.value("gates", Json::array())) {
      rows.push_back({result.name + (gate.contains("line") ? ": " + gate.value("line", "") : ""),
                      gate.value("name", ""), Number(DoubleOr(gate, "limit", std::nan(""))),
                      Number(DoubleOr(gate, "value", std::nan(""))),
                      gate.value("passed", false) ? "passed" : "FAILED"});
    }
  }
  return rows.size() > 1 ? "<h2>Quality gates</h2>\n" + Table(rows) : "";
}

}  // namespace

std::string HtmlReport(const fs::path& directory) {
  const fs::path folder =
      fs::is_directory(directory / "results") ? directory / "results" : directory;
  const std::vector<Result> results = ReadResults(folder);
  const fs::path absolute = fs::absolute(folder).lexically_normal();
  const bool beside = absolute.filename() == "results";
  std::string html = kHead;
  html += "<h1>kvc report</h1>\n<p>kvc " + EscapeHtml(Version()) +
          "; cache shares count allocated bytes.</p>\n";
  html += Gates(results) + TablesOf(ReportTables(folder));
  for (const Result& result : results) {
    if (result.json.contains("lines") && !result.json["lines"].empty()) html += Comparison(result);
  }
  html += Divergences(results);
  std::string tasks, made;
  for (const Result& result : results) {
    const bool cells = result.json.contains("cells");
    if (cells && result.json.contains("accuracy")) tasks += Needles(result);
    if (cells && result.json.contains("score")) tasks += TaskScores(result);
    const Json layers = result.json.value("layers", Json::array());
    if (layers.is_array() && !layers.empty() && layers[0].is_object())
      made += Factorization(result);
  }
  if (!tasks.empty()) html += "<h2>Tasks</h2>\n" + tasks;
  if (!made.empty()) html += "<h2>Thin keys</h2>\n" + made;
  html += Bundles(beside ? absolute.parent_path() : absolute);
  return html + "</body></html>\n";
}

}  // namespace kvc::report
