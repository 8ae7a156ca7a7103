#include "pipeline/report/sections.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "pipeline/report/format_text.h"

namespace kvc::report {
namespace {

const Axis kBytesOfFull = {"cache after the prompt, of the full cache's bytes", Unit::kShare,
                           Scale::kHalvings};
// The group, and so the colour, of whatever is of the full cache.
constexpr const char* kFull = "full";

// Returns a logarithmic scale for values that spread over more than a factor of four.
Scale ScaleOf(const std::vector<Series>& series) {
  double low = std::numeric_limits<double>::infinity(), high = 0.0;
  for (const Series& one : series) {
    for (const auto& [x, y] : one.points) {
      low = std::min(low, y);
      high = std::max(high, y);
    }
  }
  return low > 0.0 && high > 4.0 * low ? Scale::kLog : Scale::kLinear;
}

// ---- comparisons

// Adds a comparison's lines for a measure, one series for each policy. The first line is the
// reference.
void AddSeries(const Run& run,
               const Comparison& comparison,
               double ComparedLine::*measure,
               std::vector<Series>& series) {
  std::vector<Series> own;
  for (size_t i = 0; i < comparison.lines.size(); ++i) {
    const ComparedLine& line = comparison.lines[i];
    if (!std::isfinite(line.*measure) || !std::isfinite(line.prompt_share)) continue;
    auto at = std::ranges::find(own, NameIn(run, line.name), &Series::name);
    if (at == own.end()) {
      at = own.insert(
          at, {NameIn(run, line.name), {}, run.letter == "B" ? 1 : 0, i == 0 ? kFull : line.name});
    }
    at->points.emplace_back(line.prompt_share, line.*measure);
  }
  for (Series& one : own) {
    std::ranges::sort(one.points);
    series.push_back(std::move(one));
  }
}

Table LinesOf(const Comparison& comparison) {
  Table table{{"policy", "budget", "bytes", "KLD", "+-", "median", "99.9 %", "perplexity",
               "same top", "needles", "ruler"},
              {}};
  for (const ComparedLine& line : comparison.lines) {
    table.rows.push_back({line.name, line.budget, Percent(line.prompt_share), Number(line.kld, 4),
                          Number(line.kld_error, 4), Number(line.kld_median, 4),
                          Number(line.kld_p999, 3), Number(line.perplexity, 3),
                          Percent(line.same_top), Percent(line.needles), Percent(line.ruler)});
  }
  for (const ImpossibleLine& line : comparison.impossible) {
    table.rows.push_back({line.name, line.budget, "impossible: " + line.reason});
  }
  return table;
}

void AddComparison(std::span<const Run> runs, const std::string& name, Page& page) {
  const Axis nats = {"KL divergence, nats", Unit::kNumber, Scale::kLog};
  Chart kld{"Divergence from the full cache", kBytesOfFull, nats};
  Chart perplexity{"Perplexity", kBytesOfFull, {"perplexity"}};
  Chart needles{"Needles found", kBytesOfFull, {"share", Unit::kShare}};
  Chart ruler{"RULER-style tasks", kBytesOfFull, {"mean score", Unit::kShare}};
  std::vector<std::pair<std::string, Table>> tables;
  for (const Run& run : runs) {
    for (const Result& result : run.results) {
      if (!result.comparison || result.name != name) continue;
      AddSeries(run, *result.comparison, &ComparedLine::kld, kld.series);
      AddSeries(run, *result.comparison, &ComparedLine::perplexity, perplexity.series);
      AddSeries(run, *result.comparison, &ComparedLine::needles, needles.series);
      AddSeries(run, *result.comparison, &ComparedLine::ruler, ruler.series);
      tables.emplace_back(NameIn(run, "all lines of " + name), LinesOf(*result.comparison));
    }
  }
  // The reference has no divergence from itself.
  std::erase_if(kld.series, [](const Series& one) { return one.group == kFull; });
  perplexity.y.scale = ScaleOf(perplexity.series);
  page.AddHeading("Comparison: " + name);
  for (const Chart* chart : {&kld, &perplexity, &needles, &ruler}) page.AddChart(*chart);
  for (const auto& [title, table] : tables) page.AddFolded(title, table);
}

// ---- needles, tasks

void AddNeedleMap(const std::string& name, const Needles& needles, Page& page) {
  std::set<int64_t> lengths;
  std::set<double> depths;
  for (const NeedleCell& cell : needles.cells) {
    lengths.insert(cell.length);
    depths.insert(cell.depth);
  }
  HeatMap map{"Needles: " + name + ", " + Percent(needles.accuracy) + " found",
              "depth",
              "prompt tokens",
              {},
              {},
              {},
              1.0,
              true,
              "Share of the prompts answered, in percent; depth 0 is the prompt's beginning."};
  for (const int64_t length : lengths) map.columns.push_back(Tokens(static_cast<double>(length)));
  for (const double depth : depths) {
    map.rows.push_back(FormatText("%.4g", depth));
    auto& row = map.values.emplace_back(lengths.size(), std::nan(""));
    for (const NeedleCell& cell : needles.cells) {
      const auto column = std::distance(lengths.begin(), lengths.find(cell.length));
      if (cell.depth == depth) row[column] = cell.accuracy;
    }
  }
  if (needles.cells.size() > 1) page.AddHeatMap(map);
}

Table TaskTable(const Tasks& tasks) {
  Table table{{"task", "length", "score", "+-", "samples"}, {}};
  for (const TaskCell& cell : tasks.cells) {
    table.rows.push_back({cell.task, cell.length ? std::to_string(*cell.length) : "-",
                          Percent(cell.score), Percent(cell.error), std::to_string(cell.samples)});
  }
  table.rows.push_back({"mean", "-", Percent(tasks.score), "-", "-"});
  return table;
}

// ---- speed, memory

Series RatesOf(const Run& run, const std::string& name, const Speed& speed) {
  const bool full = speed.method == kFull;
  Series series{NameIn(run, name + " (" + speed.method + ", " + speed.budget + ")"),
                {},
                run.letter == "B" ? 1 : 0,
                full ? kFull : name};
  for (const SpeedPoint& point : speed.depths) {
    series.points.emplace_back(static_cast<double>(point.depth), point.rate);
  }
  return series;
}

// Adds the full cache's line, once for all bundles of one model.
void AddFullLine(Series full, std::vector<Series>& series) {
  const auto same = [&](const Series& one) { return one.points == full.points; };
  if (std::ranges::none_of(series, same)) series.push_back(std::move(full));
}

// Adds what was measured at each depth, and what the checkpoint itself would cache there.
void AddMeasuredBytes(const Run& run, std::vector<Series>& series) {
  for (const Result& result : run.results) {
    if (!result.speed) continue;
    Series own{NameIn(run, result.name), {}, run.letter == "B" ? 1 : 0, result.name};
    Series full{"full cache", {}, 0, kFull};
    for (const SpeedPoint& point : result.speed->depths) {
      if (point.cache.full <= 0) continue;
      const auto depth = static_cast<double>(point.depth);
      own.points.emplace_back(depth, static_cast<double>(point.cache.allocated));
      full.points.emplace_back(depth, static_cast<double>(point.cache.full));
    }
    if (result.speed->method != kFull) series.push_back(std::move(own));
    AddFullLine(std::move(full), series);
  }
}

void AddPredictedBytes(const Run& run, std::vector<Series>& series) {
  for (const BundleSummary& bundle : run.bundles) {
    if (bundle.method == kFull || bundle.lengths.empty()) continue;
    Series own{NameIn(run, bundle.name), {}, run.letter == "B" ? 1 : 0, bundle.name};
    Series full{"full cache", {}, 0, kFull};
    for (const BundleSummary::Length& length : bundle.lengths) {
      const auto tokens = static_cast<double>(length.tokens);
      own.points.emplace_back(tokens, static_cast<double>(length.allocated));
      full.points.emplace_back(tokens, static_cast<double>(length.full));
    }
    series.push_back(std::move(own));
    AddFullLine(std::move(full), series);
  }
}

}  // namespace

void AddGates(std::span<const Run> runs, Page& page) {
  Table table{{"result", "gate", "limit", "value", ""}, {}};
  for (const Run& run : runs) {
    for (const Result& result : run.results) {
      for (const Gate& gate : result.gates) {
        table.rows.push_back(
            {NameIn(run, result.name + (gate.line.empty() ? "" : ": " + gate.line)), gate.name,
             FormatText("%.4g", gate.limit), FormatText("%.4g", gate.value),
             gate.passed ? "passed" : "FAILED"});
      }
    }
  }
  page.AddHeading("Quality gates");
  page.AddTable(table);
}

void AddComparisons(std::span<const Run> runs, Page& page) {
  std::vector<std::string> names;
  for (const Run& run : runs) {
    for (const Result& result : run.results) {
      const bool known = std::ranges::find(names, result.name) != names.end();
      if (result.comparison && !known) names.push_back(result.name);
    }
  }
  for (const std::string& name : names) AddComparison(runs, name, page);
}

void AddDivergences(std::span<const Run> runs, Page& page) {
  Axis bytes = kBytesOfFull;
  bytes.label = "cache, of the full cache's bytes";
  Chart kld{
      "Divergence of the bundles", bytes, {"KL divergence, nats", Unit::kNumber, Scale::kLog}};
  Chart perplexity{"Perplexity of the bundles", bytes, {"perplexity"}};
  std::set<double> references;
  for (const Run& run : runs) {
    const int number = run.letter == "B" ? 1 : 0;
    for (const JudgedCache& one : JudgedBundles(run)) {
      kld.series.push_back({NameIn(run, one.name), {{one.share, one.kld}}, number, one.name});
      perplexity.series.push_back(
          {NameIn(run, one.name), {{one.share, one.perplexity}}, number, one.name});
      if (std::isfinite(one.full_perplexity) && references.insert(one.full_perplexity).second) {
        perplexity.series.push_back({"full cache", {{1.0, one.full_perplexity}}, 0, kFull});
      }
    }
  }
  if (kld.series.size() < 1 + runs.size()) return;  // the verdict has the numbers
  perplexity.y.scale = ScaleOf(perplexity.series);
  page.AddHeading("Bundles against the full cache");
  page.AddChart(kld);
  page.AddChart(perplexity);
}

void AddNeedlesAndTasks(std::span<const Run> runs, Page& page) {
  page.AddHeading("Needles and tasks");
  for (const Run& run : runs) {
    for (const Result& result : run.results) {
      if (result.needles) AddNeedleMap(NameIn(run, result.name), *result.needles, page);
    }
  }
  for (const Run& run : runs) {
    for (const Result& result : run.results) {
      if (result.tasks)
        page.AddFolded("scores of " + NameIn(run, result.name), TaskTable(*result.tasks));
    }
  }
}

void AddSpeedAndMemory(std::span<const Run> runs, Page& page) {
  const Axis depth = {"tokens in the cache", Unit::kTokens};
  Chart rates{"Decoding", depth, {"tokens/s"}};
  Chart measured{"Cache memory as the sequence grows, measured",
                 depth,
                 {"allocated for one sequence", Unit::kBytes}};
  Chart predicted{"Cache memory behind a prompt",
                  {"prompt tokens", Unit::kTokens},
                  {"allocated for one sequence", Unit::kBytes}};
  predicted.note = "As kvc-export predicts it; the runtime allocates what it says.";
  for (const Run& run : runs) {
    for (const Result& result : run.results) {
      if (result.speed) rates.series.push_back(RatesOf(run, result.name, *result.speed));
    }
    AddMeasuredBytes(run, measured.series);
    AddPredictedBytes(run, predicted.series);
  }
  page.AddHeading("Speed and memory");
  page.AddChart(rates);
  page.AddChart(measured);
  page.AddChart(predicted);
}

}  // namespace kvc::report
