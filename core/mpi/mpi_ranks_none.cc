#include "core/base/error.h"
#include "core/mpi/mpi_ranks.h"

namespace kvc {

std::string MpiVersion() { return "none"; }

std::unique_ptr<Ranks> StartMpi(const Launch& launch,
                                std::function<void(const std::string& message)>) {
  KVC_THROW(kUsage,
            "{}: expected one rank, as this kvc was built without MPI, got {}; install "
            "libopenmpi-dev and build again, or start one process",
            launch.by, launch.size);
}

}  // namespace kvc
