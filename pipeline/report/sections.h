#pragma once
// The sections of a report's page, for one run or for two side by side. Each adds nothing where no
// run has what it shows.

#include <span>

#include "pipeline/report/page.h"
#include "pipeline/report/run.h"

namespace kvc::report {

void AddGates(std::span<const Run> runs, Page& page);
// Divergence, perplexity, needles and RULER scores over cache bytes: a line for each method.
void AddComparisons(std::span<const Run> runs, Page& page);
// The bundles that kvc-eval kld compared, where there are several.
void AddDivergences(std::span<const Run> runs, Page& page);
void AddNeedlesAndTasks(std::span<const Run> runs, Page& page);
// Tokens per second and cache bytes over the length of the sequence.
void AddSpeedAndMemory(std::span<const Run> runs, Page& page);
void AddBudgets(std::span<const Run> runs, Page& page);
void AddProfiles(std::span<const Run> runs, Page& page);
// Ranks of the layers and spectra.
void AddThinKeys(std::span<const Run> runs, Page& page);

}  // namespace kvc::report
