#include "pipeline/report/measures.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "pipeline/report/format_text.h"

namespace kvc::report {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
using Better = Measure::Better;

// Gathers measures; values that were not measured and names that are there are left out.
class Measures {
 public:
  void Begin(const std::string& of) { of_ = of; }
  void Add(const std::string& name, double value, Better better, double error = kNone) {
    Put({of_, name, value, better, false, error});
  }
  void AddShare(const std::string& name, double value, Better better, double error = kNone) {
    Put({of_, name, value, better, true, error});
  }
  std::vector<Measure> Take() { return std::move(all_); }

 private:
  void Put(const Measure& measure) {
    const auto same = [&](const Measure& other) {
      return other.of == measure.of && other.name == measure.name;
    };
    if (std::isfinite(measure.value) && std::ranges::none_of(all_, same)) all_.push_back(measure);
  }
  std::string of_;
  std::vector<Measure> all_;
};

void AddComparison(const std::string& name, const Comparison& comparison, Measures& measures) {
  for (const ComparedLine& line : comparison.lines) {
    measures.Begin(name + ": " + line.name + " at " + line.budget);
    measures.AddShare("cache bytes of the full", line.prompt_share, Better::kLower);
    measures.Add("KL divergence", line.kld, Better::kLower, line.kld_error);
    measures.Add("perplexity", line.perplexity, Better::kLower);
    measures.AddShare("same most probable token", line.same_top, Better::kHigher);
    measures.AddShare("needles found", line.needles, Better::kHigher);
    measures.AddShare("RULER score", line.ruler, Better::kHigher);
  }
}

void AddSpeed(const Speed& speed, Measures& measures) {
  measures.Add("prompt, tokens/s", speed.prompt_rate, Better::kHigher);
  for (const SpeedPoint& point : speed.depths) {
    measures.Add("decoding at " + Tokens(static_cast<double>(point.depth)) + ", tokens/s",
                 point.rate, Better::kHigher, point.deviation);
  }
}

}  // namespace

std::vector<Measure> MeasuresOf(const Run& run) {
  Measures measures;
  for (size_t i = 0; i < run.results.size(); ++i) {
    const Result& result = run.results[i];
    measures.Begin(run.labels[i]);
    if (result.divergence) {
      const Divergence& found = *result.divergence;
      measures.AddShare("cache bytes of the full", found.cache.share(), Better::kLower);
      measures.Add("KL divergence", found.kld, Better::kLower, found.kld_error);
      measures.Add("perplexity", found.perplexity, Better::kLower);
      measures.Add("perplexity of the full cache", found.perplexity_against, Better::kLower);
      measures.AddShare("same most probable token", found.same_top, Better::kHigher);
    }
    if (result.perplexity) {
      measures.Add("perplexity (kvc-eval ppl)", result.perplexity->perplexity, Better::kLower);
    }
    if (result.needles) {
      measures.AddShare("needles found", result.needles->accuracy, Better::kHigher);
    }
    if (result.speed) AddSpeed(*result.speed, measures);
    if (result.tasks) {
      measures.Begin(result.name);
      measures.AddShare("score", result.tasks->score, Better::kHigher);
    }
    if (result.comparison) AddComparison(result.name, *result.comparison, measures);
  }
  for (const Result& result : run.results) {
    measures.Begin("step " + result.name);
    measures.Add("seconds", result.seconds, Better::kLower);
  }
  return measures.Take();
}

}  // namespace kvc::report
