#include "pipeline/report/report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "core/base/counted.h"
#include "core/base/error.h"
#include "core/base/sizes.h"
#include "pipeline/report/format_text.h"

namespace kvc::report {
namespace {

// A table that is filled cell by cell: rows and columns in the order in which they come.
class Cells {
 public:
  void Set(const std::string& row, const std::string& column, const std::string& text) {
    Remember(row, rows_);
    Remember(column, columns_);
    cells_[{row, column}] = text;
  }
  void SetCache(const std::string& suffix, const std::string& column, const CacheBytes& cache) {
    if (cache.full <= 0) return;
    Set("cache allocated" + suffix, column,
        FormatBytes(cache.allocated) + " (" + Percent(cache.share()) + ")");
    Set("cache peak" + suffix, column, FormatBytes(cache.peak));
  }
  [[nodiscard]] Table ToTable() const {
    Table table{{""}, {}};
    table.heading.insert(table.heading.end(), columns_.begin(), columns_.end());
    for (const std::string& row : rows_) {
      auto& cells = table.rows.emplace_back(std::vector<std::string>{row});
      for (const std::string& column : columns_) {
        const auto cell = cells_.find({row, column});
        cells.push_back(cell == cells_.end() ? "-" : cell->second);
      }
    }
    return table;
  }

 private:
  static void Remember(const std::string& name, std::vector<std::string>& names) {
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  }
  std::vector<std::string> rows_, columns_;
  std::map<std::pair<std::string, std::string>, std::string> cells_;
};

constexpr const char* kPerplexity = "perplexity";

void AddDivergence(const Divergence& found, const std::string& label, Cells& cells) {
  cells.Set(kPerplexity, label, Number(found.perplexity, 3));
  cells.Set("KL divergence to full (nats)", label, Number(found.kld, 4));
  cells.Set("same most probable token", label, Percent(found.same_top));
  cells.SetCache("", label, found.cache);
}

// Adds the references of all divergences first: one column for each that differs.
void AddReferences(const std::vector<Result>& results,
                   const std::vector<std::string>& labels,
                   Cells& cells) {
  using Key = std::tuple<double, int64_t, int64_t, int64_t>;
  std::vector<std::pair<Key, size_t>> references;  // and the first result compared with it
  bool taken = false;
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].divergence) continue;
    const Divergence& found = *results[i].divergence;
    const CacheBytes& cache = found.cache_against;
    const Key key = {found.perplexity_against, cache.full, cache.allocated, cache.peak};
    taken = taken || labels[i] == "full";
    const auto known = std::ranges::find(references, key, &std::pair<Key, size_t>::first);
    if (known == references.end()) references.emplace_back(key, i);
  }
  for (const auto& [key, i] : references) {
    const bool alone = references.size() == 1 && !taken;
    const std::string label = alone ? "full" : "full of " + labels[i];
    cells.Set(kPerplexity, label, Number(results[i].divergence->perplexity_against, 3));
    cells.SetCache("", label, results[i].divergence->cache_against);
  }
}

void AddPerplexity(const Perplexity& found, const std::string& label, Cells& cells) {
  constexpr const char* kSuffix = " (kvc-eval ppl)";
  cells.Set(std::string(kPerplexity) + kSuffix, label, Number(found.perplexity, 3));
  if (std::isfinite(found.nll)) {
    cells.Set(std::string("nats per token") + kSuffix, label,
              Number(found.nll, 4) + " +- " + Number(found.nll_error, 4));
  }
  cells.SetCache(kSuffix, label, found.cache);
}

// Adds the accuracy, and for each prompt length its mean over depths.
void AddNeedles(const Needles& found, const std::string& label, Cells& cells) {
  cells.Set("needles found", label, Percent(found.accuracy));
  std::map<int64_t, std::pair<double, int64_t>> sums;
  for (const NeedleCell& cell : found.cells) {
    auto& [sum, count] = sums[cell.length];
    sum += cell.accuracy;
    ++count;
  }
  for (const auto& [length, sum] : sums) {
    cells.Set("- at " + Counted(length, "token"), label,
              Percent(sum.first / static_cast<double>(sum.second)));
  }
}

}  // namespace

Table StageTable(const std::vector<Result>& results) {
  Table table{{"step", "command", "seconds", "peak memory"}, {}};
  for (const Result& result : results) {
    const bool printed = !result.command.empty();
    table.rows.push_back({result.name, printed ? result.command : "kvc-eval compare -o",
                          Number(result.seconds, 1),
                          printed ? FormatBytes(result.peak_rss_bytes) : "-"});
  }
  return table;
}

Table QualityTable(const std::vector<Result>& results) {
  const std::vector<std::string> labels = LabelsOf(results);
  Cells cells;
  AddReferences(results, labels, cells);
  for (size_t i = 0; i < results.size(); ++i) {
    const Result& result = results[i];
    if (result.divergence) AddDivergence(*result.divergence, labels[i], cells);
    if (result.perplexity) AddPerplexity(*result.perplexity, labels[i], cells);
    if (result.needles) AddNeedles(*result.needles, labels[i], cells);
    if (result.tasks) {
      const size_t rest = result.name.size() - labels[i].size();
      const std::string task = rest > 1 ? result.name.substr(0, rest - 1) + " score" : "score";
      cells.Set(task, labels[i], Percent(result.tasks->score));
    }
  }
  return cells.ToTable();
}

std::string ReportTables(const std::filesystem::path& directory) {
  const std::vector<Result> results = ReadResults(directory);
  KVC_CHECK(!results.empty(), kBadInput,
            "{}: expected results of kvc commands (--json > NAME.json), got none",
            directory.string());
  const std::string quality = ToMarkdown(QualityTable(results));
  return ToMarkdown(StageTable(results)) + (quality.empty() ? "" : "\n" + quality);
}

}  // namespace kvc::report
