// Launchers as the environment tells of them (core/mpi/launcher.h).

#include "core/mpi/launcher.h"

#include <map>
#include <string>

#include <gtest/gtest.h>

namespace kvc {
namespace {

using Variables = std::map<std::string, std::string>;

Launch LaunchWith(const Variables& variables) {
  return LaunchOf([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(LaunchOf, NobodyLaunchesAnOrdinaryCommand) {
  EXPECT_EQ(LaunchWith({}).size, 1);
  EXPECT_EQ(LaunchWith({}).by, "");
  // A batch script of Slurm is no step.
  EXPECT_EQ(LaunchWith({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}}).size,
            1);
  // One process needs no other, and no MPI.
  EXPECT_EQ(LaunchWith({{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}}).by, "");
}

TEST(LaunchOf, ReadsMpirun) {
  const Launch launch = LaunchWith({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"}});
  EXPECT_EQ(launch.size, 4);
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.by, "mpirun");
  const Launch other = LaunchWith({{"PMI_SIZE", "2"}, {"PMI_RANK", "1"}});
  EXPECT_EQ(other.size, 2);
  EXPECT_EQ(other.rank, 1);
}

TEST(LaunchOf, MpirunInsideASlurmJobIsMpirun) {
  // The step is mpirun's own daemon, one for each machine.
  const Launch launch = LaunchWith({{"OMPI_COMM_WORLD_SIZE", "4"},
                                    {"OMPI_COMM_WORLD_RANK", "2"},
                                    {"SLURM_STEP_ID", "0"},
                                    {"SLURM_STEP_NUM_TASKS", "2"},
                                    {"SLURM_PROCID", "1"}});
  EXPECT_EQ(launch.size, 4);
  EXPECT_EQ(launch.rank, 2);
}

TEST(LaunchOf, ReadsSlurmAndItsPlugin) {
  Variables step = {{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "3"}, {"SLURM_PROCID", "2"}};
  const Launch plain = LaunchWith(step);
  EXPECT_EQ(plain.size, 3);
  EXPECT_EQ(plain.rank, 2);
  EXPECT_EQ(plain.by, "srun");
  EXPECT_FALSE(plain.has_mpi);
  step["PMIX_RANK"] = "2";
  EXPECT_TRUE(LaunchWith(step).has_mpi);
}

TEST(LaunchOf, WordsAreNoNumbers) {
  EXPECT_EQ(LaunchWith({{"OMPI_COMM_WORLD_SIZE", "many"}}).size, 1);
  EXPECT_EQ(LaunchWith({{"OMPI_COMM_WORLD_SIZE", "4x"}}).size, 1);
  EXPECT_EQ(LaunchWith({{"OMPI_COMM_WORLD_SIZE", "-4"}}).size, 1);
}

}  // namespace
}  // namespace kvc
