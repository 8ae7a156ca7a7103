#include "tools/command_ranks.h"

#include <algorithm>
#include <cstdio>

#include <sched.h>

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/mpi/mpi_ranks.h"
#include "linalg/blas_kernels.h"

namespace kvc::tools {
namespace {

// Returns what must be equal on all ranks before they look at any file.
RankFacts FactsOf(int argc, char** argv) {
  RankFacts facts = {{"kvc", std::string(Version())},
                     {"OpenBLAS kernels", std::string(linalg::BlasKernels())}};
  for (int i = 1; i < argc; ++i) facts.emplace_back("argument " + std::to_string(i), argv[i]);
  return facts;
}

// Returns this rank's share of the processors that its launcher lets it run on. (The number that
// the standard library knows is the machine's.)
int CoresOf(Ranks& ranks) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
  const int cores = CPU_COUNT(&allowed);
  // Ranks of one machine that may run on the same processors share them.
  std::string place = ranks.host() + ":";
  place.append(reinterpret_cast<const char*>(&allowed), sizeof allowed);
  const auto sharing = std::ranges::count(ranks.AllGather(place), place);
  return std::max(cores / static_cast<int>(sharing), 1);
}

CommandRanks Start(const std::string& command, RankUse use, const Launch& launch) {
  CommandRanks started;
  KVC_CHECK(use == RankUse::kAny, kUsage,
            "{}: expected one process of {}, which shares its work with no other, got {}; start it "
            "without {}",
            launch.by, command, launch.size, launch.by);
  started.launched = StartMpi(launch, [command](const std::string& message) {
    if (!message.empty()) PrintError(command, message);
  });
  started.cores = CoresOf(*started.launched);
  return started;
}

}  // namespace

void PrintError(const std::string& command, const std::string& message) {
  std::string line = message;
  std::ranges::replace(line, '\n', ' ');
  std::fprintf(stderr, "%s: error: %s\n", command.c_str(), line.c_str());
}

CommandRanks StartRanks(const std::string& command, RankUse use, int argc, char** argv) {
  const Launch launch = LaunchOfThisProcess();
  if (launch.size == 1) return {};
  try {
    CommandRanks started = Start(command, use, launch);
    CheckAgreement(*started.launched, FactsOf(argc, argv));
    return started;
  } catch (const Error& error) {
    throw Error(error.kind(), launch.rank == 0 ? error.what() : "");
  }
}

}  // namespace kvc::tools
