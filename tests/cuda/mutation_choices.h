#pragma once
// Runs of the kernels that choose, for mutation_main.cc: each returns the error of what it found in
// units of its bound, 0 where everything is as it must be.

#include "core/base/rng.h"

namespace kvc::cuda {

// Selects the best of few scores that are equal often and of more than a tile.
[[nodiscard]] double RunSelect(Rng& rng);
// Pools the sums of two heads and adds them up.
[[nodiscard]] double RunFinish(Rng& rng);
// Gives the rows that another score ranks first the highest scores.
[[nodiscard]] double RunReserve(Rng& rng);
// Draws tokens; 2, twice the bound, where one is not the one that is due.
[[nodiscard]] double RunSample(Rng& rng);

}  // namespace kvc::cuda
