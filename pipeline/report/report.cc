#include "pipeline/report/report.h"

#include <map>
#include <set>
#include <vector>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/io/json.h"
#include "pipeline/report/format_text.h"

namespace kvc::report {
namespace {

constexpr const char* kFull = "full";

struct Result {
  std::string stem;
  std::string label;  // bundle: behind the last '-' of the stem
  Json json;
};

std::vector<Result> ReadResults(const std::filesystem::path& directory) {
  std::map<std::filesystem::file_time_type, std::filesystem::path> by_time;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() == ".json") by_time[entry.last_write_time()] = entry.path();
  }
  std::vector<Result> results;
  for (const auto& [time, path] : by_time) {
    Json json = ReadJsonFile(path);
    if (!json.is_object() || !json.contains("command")) continue;
    const std::string stem = path.stem().string();
    const size_t dash = stem.rfind('-');
    results.push_back(
        {stem, dash == std::string::npos ? stem : stem.substr(dash + 1), std::move(json)});
  }
  KVC_CHECK(!results.empty(), kBadInput,
            "{}: expected results of kvc commands (--json > NAME.json), got none",
            directory.string());
  return results;
}

std::string StageTable(const std::vector<Result>& results) {
  std::string table = "| step | command | seconds | peak memory |\n|---|---|---|---|\n";
  for (const Result& result : results) {
    table += FormatText("| %s | %s | %.1f | %s |\n", result.stem.c_str(),
                        result.json["command"].get<std::string>().c_str(),
                        result.json.value("seconds", 0.0),
                        FormatBytes(result.json.value("peak_rss_bytes", int64_t{0})).c_str());
  }
  return table;
}

// Rows of the quality table: name -> label -> text.
class QualityTable {
 public:
  void Add(const Result& result) {
    const Json& json = result.json;
    if (json.contains("kld_mean")) {
      Set("perplexity", result.label, FormatText("%.3f", json["perplexity"].get<double>()));
      Set("perplexity", kFull, FormatText("%.3f", json["perplexity_against"].get<double>()));
      Set("KL divergence to full (nats)", result.label,
          FormatText("%.4f", json["kld_mean"].get<double>()));
      Set("same most probable token", result.label,
          FormatText("%.1f %%", 100.0 * json["same_top"].get<double>()));
      SetCache(json["cache"], result.label);
      SetCache(json["cache_against"], kFull);
    } else if (json.contains("cells") && json.contains("accuracy")) {
      Set("needles found", result.label,
          FormatText("%.1f %%", 100.0 * json["accuracy"].get<double>()));
      SetLengths(json, result.label);
    }
  }
  [[nodiscard]] std::string ToMarkdown() const {
    if (rows_.empty()) return {};
    std::vector<std::string> labels;
    if (labels_.contains(kFull)) labels.emplace_back(kFull);
    for (const std::string& label : labels_) {
      if (label != kFull) labels.push_back(label);
    }
    std::string table = "\n| |";
    for (const std::string& label : labels) table += " " + label + " |";
    table += "\n|---|";
    for (size_t i = 0; i < labels.size(); ++i) table += "---|";
    table += "\n";
    for (const std::string& name : order_) {
      table += "| " + name + " |";
      for (const std::string& label : labels) {
        const auto& row = rows_.at(name);
        const auto cell = row.find(label);
        table += " " + (cell == row.end() ? std::string("-") : cell->second) + " |";
      }
      table += "\n";
    }
    return table;
  }

 private:
  void Set(const std::string& name, const std::string& label, const std::string& text) {
    if (!rows_.contains(name)) order_.push_back(name);
    rows_[name][label] = text;
    labels_.insert(label);
  }
  void SetCache(const Json& cache, const std::string& label) {
    const auto allocated = cache["allocated_bytes"].get<int64_t>();
    const auto full = cache["full_bytes"].get<int64_t>();
    Set("cache allocated", label,
        FormatText("%s (%.1f %%)", FormatBytes(allocated).c_str(),
                   100.0 * static_cast<double>(allocated) / static_cast<double>(full)));
    Set("cache peak", label, FormatBytes(cache["peak_bytes"].get<int64_t>()));
  }
  // Needle accuracy by prompt length, mean over depths.
  void SetLengths(const Json& json, const std::string& label) {
    std::map<int64_t, std::pair<double, int64_t>> sums;
    for (const Json& cell : json["cells"]) {
      auto& [sum, count] = sums[cell["length"].get<int64_t>()];
      sum += cell["accuracy"].get<double>();
      ++count;
    }
    for (const auto& [length, sum] : sums) {
      Set(FormatText("- at %lld tokens", static_cast<long long>(length)), label,
          FormatText("%.1f %%", 100.0 * sum.first / static_cast<double>(sum.second)));
    }
  }

  std::vector<std::string> order_;
  std::map<std::string, std::map<std::string, std::string>> rows_;
  std::set<std::string> labels_;
};

}  // namespace

std::string ReportTables(const std::filesystem::path& directory) {
  const std::vector<Result> results = ReadResults(directory);
  QualityTable quality;
  for (const Result& result : results) quality.Add(result);
  return StageTable(results) + quality.ToMarkdown();
}

}  // namespace kvc::report
