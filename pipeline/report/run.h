#pragma once
// One run as a report shows it: the results in a folder, and what stands beside them.

#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/report/artefacts.h"
#include "pipeline/report/results.h"

namespace kvc::report {

struct Run {
  std::string letter;               // "A" or "B" where two are compared, else empty
  std::string name;                 // the folder's; of a folder "results", that around it
  std::vector<Result> results;      // at least one
  std::vector<std::string> labels;  // of the results, LabelsOf
  std::vector<BundleSummary> bundles;
  std::vector<ProfileSummary> profiles;
};

// Reads DIR/*.json, or DIR/results/*.json if that folder exists, and the bundles and profiles: the
// folders in DIR, or beside it when DIR is called "results". Throws kBadInput when there is no
// result, and what ReadResults, ReadBundles and ReadProfiles throw.
[[nodiscard]] Run ReadRun(const std::filesystem::path& directory, const std::string& letter);

// Returns the name, behind "A: " where two runs are compared.
[[nodiscard]] std::string NameIn(const Run& run, const std::string& name);

// A cache that was compared with the full one. What was not measured is NaN.
struct JudgedCache {
  std::string name;
  double share = 0.0;  // bytes, of the full cache's
  CacheBytes cache;    // 0 in a comparison, which has only shares
  double kld = 0.0, kld_error = 0.0;
  double perplexity = 0.0, full_perplexity = 0.0;
  double needles = 0.0, full_needles = 0.0;
  double rate = 0.0, full_rate = 0.0;  // decoded tokens per second at `depth`
  int64_t depth = 0;
};

// Returns one for each result of kvc-eval kld, with the needles and the speed of results that share
// its label. A speed measurement also counts when it is the only one with a compressed cache.
[[nodiscard]] std::vector<JudgedCache> JudgedBundles(const Run& run);
// Returns one for each line of a comparison but the reference.
[[nodiscard]] std::vector<JudgedCache> JudgedLines(const Comparison& comparison);

}  // namespace kvc::report
