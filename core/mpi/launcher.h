#pragma once
// Tells from the environment whether a launcher (mpirun, srun) has started this process as one of
// several, without a call of MPI: a command that nobody has launched never starts MPI.

#include <functional>
#include <string>

namespace kvc {

// How this process was started. A launcher that starts one process counts as none.
struct Launch {
  int size = 1;
  int rank = 0;
  std::string by;       // "mpirun", "srun"; empty: no launcher
  bool has_mpi = true;  // false: srun without a plugin that MPI can talk to
};

// Returns the value of an environment variable, or nullptr.
using Environment = std::function<const char*(const char* name)>;

// Reads the variables of Open MPI's mpirun (OMPI_COMM_WORLD_*), of Slurm's steps (SLURM_STEP_*,
// SLURM_PROCID, with PMIX_RANK or PMI_RANK of a plugin), and of other launchers (PMI_SIZE). A batch
// script is no step.
[[nodiscard]] Launch LaunchOf(const Environment& environment);
[[nodiscard]] Launch LaunchOfThisProcess();

}  // namespace kvc
