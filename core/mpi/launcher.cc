#include "core/mpi/launcher.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace kvc {
namespace {

// Returns the number that a variable holds, or `otherwise`.
int Number(const Environment& environment, const char* name, int otherwise) {
  const char* text = environment(name);
  if (text == nullptr) return otherwise;
  const std::string_view view = text;
  int value = otherwise;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  return error == std::errc() && end == view.data() + view.size() ? value : otherwise;
}

}  // namespace

Launch LaunchOf(const Environment& environment) {
  Launch launch;
  // First mpirun's own: inside a Slurm job both are set, and the step is mpirun's daemon.
  if (environment("OMPI_COMM_WORLD_SIZE") != nullptr) {
    launch = {Number(environment, "OMPI_COMM_WORLD_SIZE", 1),
              Number(environment, "OMPI_COMM_WORLD_RANK", 0), "mpirun"};
  } else if (environment("SLURM_STEP_ID") != nullptr) {
    launch = {Number(environment, "SLURM_STEP_NUM_TASKS", 1),
              Number(environment, "SLURM_PROCID", 0), "srun"};
    launch.has_mpi = environment("PMIX_RANK") != nullptr || environment("PMI_RANK") != nullptr;
  } else if (environment("PMI_SIZE") != nullptr) {
    launch = {Number(environment, "PMI_SIZE", 1), Number(environment, "PMI_RANK", 0), "mpirun"};
  }
  return launch.size > 1 ? launch : Launch();
}

Launch LaunchOfThisProcess() {
  return LaunchOf([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace kvc
