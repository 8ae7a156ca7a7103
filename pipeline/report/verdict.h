#pragma once
// The verdict of one run, for a reader with a minute: which cache, how many bytes, what it costs.

#include <string>
#include <vector>

#include "pipeline/report/page.h"
#include "pipeline/report/run.h"

namespace kvc::report {

// Caches that diverge by no more than this count as close to the full one.
inline constexpr double kCloseKld = 0.1;  // nats

// Returns the index of the smallest cache within kCloseKld, or, if none is, of the one that
// diverges least; of equals the first. -1 when none has a finite share and divergence.
[[nodiscard]] int ChooseCache(const std::vector<JudgedCache>& judged);

struct Verdict {
  std::string sentence;
  std::vector<Tile> tiles;  // bytes, divergence, needles, speed; empty without a judged cache
};
// Judges the bundles that kvc-eval kld compared, or, without one, the lines of the first
// comparison. Says which gates failed, and how what is missing is measured.
[[nodiscard]] Verdict VerdictOf(const Run& run);

}  // namespace kvc::report
