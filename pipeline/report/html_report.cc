#include "pipeline/report/html_report.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/io/files.h"
#include "pipeline/report/format_text.h"
#include "pipeline/report/report.h"
#include "pipeline/report/results.h"
#include "pipeline/report/svg_chart.h"
#include "pipeline/report/table.h"

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

std::string Number(double value) { return FormatText("%.4g", value); }
std::string Percent(double share) { return FormatText("%.1f %%", 100.0 * share); }

// ---- comparisons

// Returns the points of all lines for a measure against cache bytes, one series per policy. The
// reference, the first line, is left out of divergences, for which it has no value.
std::vector<Series> SeriesOf(const Comparison& comparison,
                             double ComparedLine::*measure,
                             bool with_reference) {
  std::vector<Series> series;
  for (size_t i = with_reference ? 0 : 1; i < comparison.lines.size(); ++i) {
    const ComparedLine& line = comparison.lines[i];
    if (!std::isfinite(line.*measure) || !std::isfinite(line.prompt_share)) continue;
    auto at = std::ranges::find(series, line.name, &Series::name);
    if (at == series.end()) at = series.insert(at, {line.name, {}});
    at->points.emplace_back(100.0 * line.prompt_share, line.*measure);
  }
  for (Series& one : series) std::ranges::sort(one.points);
  return series;
}

Table CompareTable(const Comparison& comparison) {
  Table table{{"policy", "budget", "bytes", "KLD", "+-", "median", "99.9 %", "perplexity",
               "same top", "needles", "ruler"},
              {}};
  const auto decimals = [](double value, int digits) {
    return std::isfinite(value) ? FormatText("%.*f", digits, value) : std::string("-");
  };
  const auto percent = [](double share) {
    return std::isfinite(share) ? Percent(share) : std::string("-");
  };
  for (const ComparedLine& line : comparison.lines) {
    table.rows.push_back({line.name, line.budget, percent(line.prompt_share), decimals(line.kld, 4),
                          decimals(line.kld_error, 4), decimals(line.kld_median, 4),
                          decimals(line.kld_p999, 3), decimals(line.perplexity, 3),
                          percent(line.same_top), percent(line.needles), percent(line.ruler)});
  }
  for (const ImpossibleLine& line : comparison.impossible) {
    table.rows.push_back({line.name, line.budget, "impossible: " + line.reason});
  }
  return table;
}

std::string ComparisonSection(const std::string& name, const Comparison& comparison) {
  const char* bytes = "cache after the prompt, % of the full cache's bytes";
  return "<h2>Comparison: " + EscapeHtml(name) + "</h2>\n" + ToHtml(CompareTable(comparison)) +
         LineChart({"Divergence from the full cache", bytes, "KLD, nats (log)"},
                   SeriesOf(comparison, &ComparedLine::kld, false), true) +
         LineChart({"Perplexity", bytes, "perplexity (log)"},
                   SeriesOf(comparison, &ComparedLine::perplexity, true), true) +
         LineChart({"Needles found", bytes, "share"},
                   SeriesOf(comparison, &ComparedLine::needles, true), false) +
         LineChart({"RULER-style tasks", bytes, "mean score"},
                   SeriesOf(comparison, &ComparedLine::ruler, true), false);
}

// All results of kvc-eval kld and ppl in two charts: bytes against divergence and perplexity.
std::string Divergences(const std::vector<Result>& results) {
  std::vector<Series> kld, perplexity;
  for (const Result& result : results) {
    if (result.divergence) {
      const Divergence& found = *result.divergence;
      const double share = 100.0 * found.cache.share();
      kld.push_back({result.name, {{share, found.kld}}});
      perplexity.push_back({result.name, {{share, found.perplexity}}});
      perplexity.push_back({result.name + ": reference",
                            {{100.0 * found.cache_against.share(), found.perplexity_against}}});
    }
    if (result.perplexity) {
      const double share = 100.0 * result.perplexity->cache.share();
      perplexity.push_back({result.name, {{share, result.perplexity->perplexity}}});
    }
  }
  const char* bytes = "cache, % of the full cache's bytes";
  const std::string charts =
      LineChart({"Divergence from the reference", bytes, "KLD, nats"}, kld, false) +
      LineChart({"Perplexity", bytes, "perplexity"}, perplexity, false);
  return charts.empty() ? charts : "<h2>Divergence and perplexity</h2>\n" + charts;
}

// ---- needles and tasks

std::string NeedleMap(const std::string& name, const Needles& needles) {
  std::vector<int64_t> lengths;
  std::vector<double> depths;
  for (const NeedleCell& cell : needles.cells) {
    if (std::ranges::find(lengths, cell.length) == lengths.end()) lengths.push_back(cell.length);
    if (std::ranges::find(depths, cell.depth) == depths.end()) depths.push_back(cell.depth);
  }
  std::vector<std::vector<double>> values(depths.size(),
                                          std::vector<double>(lengths.size(), std::nan("")));
  for (const NeedleCell& cell : needles.cells) {
    const auto row = std::ranges::find(depths, cell.depth) - depths.begin();
    const auto column = std::ranges::find(lengths, cell.length) - lengths.begin();
    values[row][column] = cell.accuracy;
  }
  HeatMapLabels labels{
      {"Needles: " + name + ", " + Percent(needles.accuracy) + " found", "prompt tokens", "depth"},
      {},
      {}};
  for (const double depth : depths) labels.rows.push_back(Number(depth));
  for (const int64_t length : lengths) labels.columns.push_back(std::to_string(length));
  return HeatMap(labels, values, 1.0);
}

std::string TaskScores(const std::string& name, const Tasks& tasks) {
  Table table{{"task", "length", "score", "+-", "samples"}, {}};
  for (const TaskCell& cell : tasks.cells) {
    table.rows.push_back({cell.task, cell.length ? std::to_string(*cell.length) : "-",
                          Percent(cell.score), Percent(cell.error), std::to_string(cell.samples)});
  }
  table.rows.push_back({"mean", "-", Percent(tasks.score), "-", "-"});
  return "<h3>" + EscapeHtml(name) + "</h3>\n" + ToHtml(table);
}

// ---- what was made

std::string Factorization(const std::string& name, const std::vector<ThinLayer>& layers) {
  constexpr size_t kShown = 5;
  const size_t step = (layers.size() + kShown - 1) / kShown;
  std::vector<double> ranks;
  std::vector<Series> spectra;
  for (size_t l = 0; l < layers.size(); ++l) {
    ranks.push_back(layers[l].rank);
    const std::vector<double>& energies = layers[l].spectrum;
    if (l % step != 0 || energies.empty() || !(energies[0] > 0.0)) continue;
    Series& one = spectra.emplace_back(Series{"layer " + std::to_string(l), {}});
    for (size_t i = 0; i < energies.size(); ++i) {
      one.points.emplace_back(static_cast<double>(i), energies[i] / energies[0]);
    }
  }
  return BarChart({"Key ranks: " + name, "layer", "dimensions"}, ranks) +
         LineChart({"Spectrum of the first group: " + name, "coordinate", "energy / largest (log)"},
                   spectra, true);
}

std::string Budgets(const std::vector<BudgetMap>& maps) {
  std::string html;
  for (const BudgetMap& map : maps) {
    double most = 0.0;
    for (const auto& layer : map.values) {
      for (const double value : layer) most = std::max(most, value);
    }
    const std::string unit = map.unit == "share" ? "share of the tokens" : map.unit;
    const HeatMapLabels labels{{"Budgets: " + map.name + " (" + map.method + ", " + map.budget +
                                    "; " + unit + ", darkest " + Number(most) + ")",
                                "group of heads", "layer"},
                               {},
                               {}};
    html += HeatMap(labels, map.values, most);
  }
  return html.empty() ? html : "<h2>Budgets of the heads</h2>\n" + html;
}

std::string Gates(const std::vector<Result>& results) {
  Table table{{"result", "gate", "limit", "value", ""}, {}};
  for (const Result& result : results) {
    for (const Gate& gate : result.gates) {
      table.rows.push_back({result.name + (gate.line.empty() ? "" : ": " + gate.line), gate.name,
                            Number(gate.limit), Number(gate.value),
                            gate.passed ? "passed" : "FAILED"});
    }
  }
  return table.rows.empty() ? "" : "<h2>Quality gates</h2>\n" + ToHtml(table);
}

}  // namespace

std::string HtmlReport(const fs::path& directory) {
  const fs::path folder =
      fs::is_directory(directory / "results") ? directory / "results" : directory;
  const std::vector<Result> results = ReadResults(folder);
  KVC_CHECK(!results.empty(), kBadInput,
            "{}: expected results of kvc commands (--json > NAME.json), got none", folder.string());
  std::string html = kHead;
  html += "<h1>kvc report</h1>\n<p>kvc " + EscapeHtml(Version()) +
          "; cache shares count allocated bytes.</p>\n";
  html += Gates(results) + ToHtml(StageTable(results)) + ToHtml(QualityTable(results));
  for (const Result& result : results) {
    if (result.comparison) html += ComparisonSection(result.name, *result.comparison);
  }
  html += Divergences(results);
  std::string tasks, made;
  for (const Result& result : results) {
    if (result.needles) tasks += NeedleMap(result.name, *result.needles);
    if (result.tasks) tasks += TaskScores(result.name, *result.tasks);
    if (!result.layers.empty()) made += Factorization(result.name, result.layers);
  }
  if (!tasks.empty()) html += "<h2>Tasks</h2>\n" + tasks;
  if (!made.empty()) html += "<h2>Thin keys</h2>\n" + made;
  const fs::path absolute = fs::absolute(folder).lexically_normal();
  const bool beside = absolute.filename() == "results";
  html += Budgets(ReadBudgets(beside ? absolute.parent_path() : absolute));
  return html + "</body></html>\n";
}

bool IsReport(const fs::path& file) {
  if (!fs::is_regular_file(file)) return false;
  constexpr size_t kTitleBefore = 1024;  // bytes
  return ReadFile(file).find("<title>kvc report</title>") < kTitleBefore;
}

}  // namespace kvc::report
