#include "pipeline/report/run.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"

namespace kvc::report {
namespace {

namespace fs = std::filesystem;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Returns the share of needles found by the results with that label; NaN if there is none.
double NeedlesOf(const Run& run, const std::string& label) {
  for (size_t i = 0; i < run.results.size(); ++i) {
    if (run.results[i].needles && run.labels[i] == label) return run.results[i].needles->accuracy;
  }
  return kNone;
}

// Returns the speed measured for a label, or the only one of a compressed cache; null if none.
const Speed* SpeedOf(const Run& run, const std::string& label) {
  const Speed* only = nullptr;
  int compressed = 0;
  for (size_t i = 0; i < run.results.size(); ++i) {
    if (!run.results[i].speed) continue;
    const Speed& speed = *run.results[i].speed;
    if (run.labels[i] == label) return &speed;
    if (speed.method == "full") continue;
    only = &speed;
    ++compressed;
  }
  return compressed == 1 ? only : nullptr;
}

// Returns the full cache's decoding rate at a depth; NaN if it was not measured there.
double FullRateAt(const Run& run, int64_t depth) {
  for (const Result& result : run.results) {
    if (!result.speed || result.speed->method != "full") continue;
    const auto at = std::ranges::find(result.speed->depths, depth, &SpeedPoint::depth);
    if (at != result.speed->depths.end()) return at->rate;
  }
  return kNone;
}

void AddSpeed(const Run& run, const std::string& label, JudgedCache& judged) {
  const Speed* speed = SpeedOf(run, label);
  if (!speed || speed->depths.empty()) return;
  judged.rate = speed->depths.back().rate;
  judged.depth = speed->depths.back().depth;
  judged.full_rate = FullRateAt(run, judged.depth);
}

}  // namespace

Run ReadRun(const fs::path& directory, const std::string& letter) {
  const fs::path folder = ResultsFolder(directory);
  fs::path absolute = fs::absolute(folder).lexically_normal();
  if (absolute.filename().empty()) absolute = absolute.parent_path();  // "out/"
  const bool beside = absolute.filename() == "results";
  const fs::path around = beside ? absolute.parent_path() : absolute;
  Run run{letter, around.filename().string(), ReadResults(folder), {}, {}, {}};
  KVC_CHECK(!run.results.empty(), kBadInput,
            "{}: expected results of kvc commands (--json > NAME.json), got none", folder.string());
  run.labels = LabelsOf(run.results);
  run.bundles = ReadBundles(around);
  run.profiles = ReadProfiles(around);
  return run;
}

std::string NameIn(const Run& run, const std::string& name) {
  return run.letter.empty() ? name : run.letter + ": " + name;
}

std::vector<JudgedCache> JudgedBundles(const Run& run) {
  std::vector<JudgedCache> judged;
  for (size_t i = 0; i < run.results.size(); ++i) {
    if (!run.results[i].divergence) continue;
    const Divergence& found = *run.results[i].divergence;
    JudgedCache& one = judged.emplace_back();
    one.name = run.labels[i];
    one.share = found.cache.share();
    one.cache = found.cache;
    one.kld = found.kld;
    one.kld_error = found.kld_error;
    one.perplexity = found.perplexity;
    one.full_perplexity = found.perplexity_against;
    one.needles = NeedlesOf(run, one.name);
    one.full_needles = NeedlesOf(run, "full");
    one.rate = one.full_rate = kNone;
    AddSpeed(run, one.name, one);
  }
  return judged;
}

std::vector<JudgedCache> JudgedLines(const Comparison& comparison) {
  std::vector<JudgedCache> judged;
  for (size_t i = 1; i < comparison.lines.size(); ++i) {
    const ComparedLine& line = comparison.lines[i];
    JudgedCache& one = judged.emplace_back();
    one.name = line.name;
    one.share = line.prompt_share;
    one.kld = line.kld;
    one.kld_error = line.kld_error;
    one.perplexity = line.perplexity;
    one.full_perplexity = comparison.lines[0].perplexity;
    one.needles = line.needles;
    one.full_needles = comparison.lines[0].needles;
    one.rate = one.full_rate = kNone;
  }
  return judged;
}

}  // namespace kvc::report
