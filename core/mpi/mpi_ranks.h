#pragma once
// Ranks (core/base/ranks.h) over MPI. MPI's own types stay in one source; a build without MPI has
// the same functions, which refuse.

#include <functional>
#include <memory>
#include <string>

#include "core/base/ranks.h"
#include "core/mpi/launcher.h"

namespace kvc {

// Returns the name and version of the MPI that this build has, "Open MPI 4.1.4", or "none".
[[nodiscard]] std::string MpiVersion();

// Starts MPI; the ranks that are returned end it. `print` writes the message of a rank that fails,
// this one's or another's, on one rank of all (Ranks::Abort). For a `launch` of several ranks only.
// Once in a process, on the thread that uses the ranks.
//
// While a rank waits for another it sleeps between looks, so that ranks may share processors with
// threads that compute. Throws kUsage when this build has no MPI, when the launcher has none to
// talk to, or when MPI finds another number of ranks than were launched.
[[nodiscard]] std::unique_ptr<Ranks> StartMpi(
    const Launch& launch, std::function<void(const std::string& message)> print);

}  // namespace kvc
