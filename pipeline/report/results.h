#pragma once
// The results of commands in a folder, as the report shows them: the output of --json, or of
// `kvc-eval compare -o`, one file each. Both the Markdown tables and the HTML file are made from
// these.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace kvc::report {

struct CacheBytes {
  int64_t full = 0, allocated = 0, peak = 0;
  // Returns allocated / full; NaN if the result does not say.
  [[nodiscard]] double share() const;
};

// Result of kvc-eval kld: a bundle against a reference.
struct Divergence {
  double kld = 0.0, kld_error = 0.0;  // mean, nats
  double same_top = 0.0;
  double perplexity = 0.0, perplexity_against = 0.0;
  CacheBytes cache, cache_against;
};

// Result of kvc-eval ppl.
struct Perplexity {
  double perplexity = 0.0;
  double nll = 0.0, nll_error = 0.0;  // nats; NaN where the result does not say
  CacheBytes cache;
};

// Cell of a kvc-eval needle result.
struct NeedleCell {
  int64_t length = 0;
  double depth = 0.0, accuracy = 0.0;
};
struct Needles {
  double accuracy = 0.0;
  std::vector<NeedleCell> cells;
};

// Cell of a kvc-eval ruler, lines or longbench result.
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

// Line of a kvc-eval compare result; the reference is first. Values that were not measured are NaN.
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

// Decoding at a depth of a kvc-bench result.
struct SpeedPoint {
  int64_t depth = 0;       // tokens in the cache
  double rate = 0.0;       // decoded tokens per second, mean of the repetitions
  double deviation = 0.0;  // of the repetitions
  CacheBytes cache;
};
// Result of kvc-bench with a bundle.
struct Speed {
  std::string method, budget, device, ids;
  int64_t threads = 0, batch = 0;
  int64_t prompt_tokens = 0;
  double prompt_rate = 0.0;  // tokens per second
  std::vector<SpeedPoint> depths;
};

// A quality gate of any command.
struct Gate {
  std::string line;  // of a comparison; empty: of the whole result
  std::string name;
  double limit = 0.0, value = 0.0;
  bool passed = false;
};

// Layer of a kvc-factorize result: its rank, and the energies of its first group's coordinates if
// the result has them.
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
  std::optional<Speed> speed;
  std::vector<Gate> gates;
  std::vector<ThinLayer> layers;
};

// Returns the folder of a run's results: DIR/results where there is one, DIR otherwise.
[[nodiscard]] std::filesystem::path ResultsFolder(const std::filesystem::path& directory);

// Returns the results in DIR/*.json, by name, skipping other JSON. Throws kBadInput for a broken
// file or a key of another type, kIo.
[[nodiscard]] std::vector<Result> ReadResults(const std::filesystem::path& directory);

// Returns short labels of results, in their order: the shortest end of the name, in parts between
// '-', that tells apart those that measure the same. Results of one bundle ("kld-lukv",
// "needle-lukv") thus share a label.
[[nodiscard]] std::vector<std::string> LabelsOf(const std::vector<Result>& results);

}  // namespace kvc::report
