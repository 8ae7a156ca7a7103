#pragma once
// The factorization stage: reads a checkpoint, writes a thin checkpoint and factorization.json.

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "factorize/factorization.h"
#include "factorize/factorize_options.h"

namespace kvc::factorize {

// Returns the sizes of a run, and what it would cost each of `ranks` ranks. Reads config.json
// alone.
[[nodiscard]] FactorizationPlan PlanFactorization(const FactorizeOptions& options, int ranks = 1);

// Runs the stage. Throws kUsage when something needs calibration text and there is none, kBadInput
// when it is too short. If the run ends early, what is tuned stays in OUT.partial, and the next run
// with the same options continues from it. Collective: every rank has its share of the windows,
// rank 0 writes, and all return the same. The output's bytes do not depend on the number of ranks,
// which may be another one in the run that continues. Throws kUsage when ranks disagree.
[[nodiscard]] FactorizationResult FactorizeModel(const FactorizeOptions& options,
                                                 Progress& progress,
                                                 Ranks& ranks = OneRank());

}  // namespace kvc::factorize
