#pragma once
// The factorization stage: reads a checkpoint, writes a thin checkpoint and factorization.json.

#include "core/base/progress.h"
#include "factorize/factorization.h"
#include "factorize/factorize_options.h"

namespace kvc::factorize {

// Returns the sizes of a run. Reads config.json alone.
[[nodiscard]] FactorizationPlan PlanFactorization(const FactorizeOptions& options);

// Runs the stage. Throws kUsage when something needs calibration text and there is none, kBadInput
// when it is too short. If the run ends early, what is tuned stays in OUT.partial, and the next run
// with the same options continues from it.
[[nodiscard]] FactorizationResult FactorizeModel(const FactorizeOptions& options,
                                                 Progress& progress);

}  // namespace kvc::factorize
