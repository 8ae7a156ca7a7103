#pragma once
// The results of commands in a folder, as the report shows them: what --json printed, or what
// `kvc-eval compare -o` wrote, one file each. Both the Markdown tables and the HTML file are made
// from these.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace kvc::report {

struct CacheBytes {
  int64_t full = 0, allocated = 0, peak = 0;
  // allocated / full; NaN where the result does not say.
  [[nodiscard]] double share() const;
};

// kvc-eval kld: a bundle against a reference.
struct Divergence {
  double kld = 0.0;  // mean, nats
  double same_top = 0.0;
  double perplexity = 0.0, perplexity_against = 0.0;
  CacheBytes cache, cache_against;
};

// kvc-eval ppl.
struct Perplexity {
  double perplexity = 0.0;
  double nll = 0.0, nll_error = 0.0;  // nats; NaN where the result does not say
  CacheBytes cache;
};

// kvc-eval needle.
struct NeedleCell {
  int64_t length = 0;
  double depth = 0.0, accuracy = 0.0;
};
struct Needles {
  double accuracy = 0.0;
  std::vector<NeedleCell> cells;
};

// kvc-eval ruler, lines, longbench.
struct TaskCell {
  std::string task;
  std::optional<int64_t> length;
  double score = 0.0, error = 0.0;
  int64_t samples = 0;
};
struct Tasks {
  double score = 0.0;  // mean
  std::vector<TaskCell> cells;
};

// kvc-eval compare: the reference first. What was not measured is NaN.
struct ComparedLine {
  std::string name, budget;
  double prompt_share = 0.0;  // cache bytes after the prompt, of the full cache's
  double kld = 0.0, kld_error = 0.0, kld_median = 0.0, kld_p999 = 0.0;
  double perplexity = 0.0, same_top = 0.0, needles = 0.0, ruler = 0.0;
};
struct ImpossibleLine {
  std::string name, budget, reason;
};
struct Comparison {
  std::vector<ComparedLine> lines;
  std::vector<ImpossibleLine> impossible;
};

// A quality gate of any command.
struct Gate {
  std::string line;  // of a comparison; empty: of the whole result
  std::string name;
  double limit = 0.0, value = 0.0;
  bool passed = false;
};

// kvc-factorize: a layer's rank, and the energies of its first group's coordinates where they are
// told.
struct ThinLayer {
  double rank = 0.0;
  std::vector<double> spectrum;
};

struct Result {
  std::string name;      // the file's, without .json
  std::string command;   // empty: a comparison's own file
  double seconds = 0.0;  // NaN where the file does not say
  int64_t peak_rss_bytes = 0;
  std::optional<Divergence> divergence;
  std::optional<Perplexity> perplexity;
  std::optional<Needles> needles;
  std::optional<Tasks> tasks;
  std::optional<Comparison> comparison;
  std::vector<Gate> gates;
  std::vector<ThinLayer> layers;
};

// The results in DIR/*.json, by name; other JSON is passed over. Throws kBadInput for a broken file
// or a key of another type, kIo.
[[nodiscard]] std::vector<Result> ReadResults(const std::filesystem::path& directory);

// The heads' budgets that a bundle's manifest holds.
struct BudgetMap {
  std::string name;  // the bundle's folder
  std::string method, budget, unit;
  std::vector<std::vector<double>> values;  // [L][G]
};
// The bundles DIR/*/manifest.json, by name. Throws as ReadResults does.
[[nodiscard]] std::vector<BudgetMap> ReadBudgets(const std::filesystem::path& directory);

}  // namespace kvc::report
