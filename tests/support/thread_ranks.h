#pragma once
// Ranks that are threads of the test: the algorithms over ranks (core/base/ranks.h) without a
// launcher. Sending waits for the receiver, so that an order of calls which could wait forever
// under MPI does so here.

#include <functional>

#include "core/base/ranks.h"

namespace kvc::testing {

// Calls body(ranks) on `size` threads, each with its rank, and waits for all of them. When one
// throws, operations of the others throw too; the exception that came first is rethrown. Throws
// kInternal when an operation waits for more than a minute.
void RunRanks(int size, const std::function<void(Ranks&)>& body);

}  // namespace kvc::testing
