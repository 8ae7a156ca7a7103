// A program that tests/core/mpi.sh starts with mpirun: the operations of core/mpi/mpi_ranks.h
// between real processes. `mpi_program`: every operation, "ok SIZE" on rank 0. `mpi_program throw
// RANK` and `kill RANK`: that rank fails while the others wait for it; `all`: every rank fails.

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/ordered_sum.h"
#include "core/mpi/mpi_ranks.h"

namespace kvc {
namespace {

void CheckCollectives(Ranks& ranks) {
  for (int root = 0; root < ranks.size(); ++root) {
    const std::string text = ranks.Broadcast("from " + std::to_string(ranks.rank()), root);
    KVC_CHECK(text == "from " + std::to_string(root), kInternal, "broadcast: got {}", text);
  }
  constexpr int64_t kMore = 100000;  // bytes of a rank than of the one before
  const auto all = ranks.AllGather(std::string(ranks.rank() * kMore, 'x'));
  for (int r = 0; r < ranks.size(); ++r) {
    KVC_CHECK(std::ssize(all[r]) == r * kMore, kInternal, "gather: got {}", all[r].size());
  }
}

void CheckSum(Ranks& ranks) {
  constexpr int64_t kParts = 7;
  constexpr int64_t kLength = 100001;
  std::vector<double> expected(kLength, 0.0);
  OrderedSum<double> sum(ranks, kParts, kLength);
  for (int64_t part = 0; part < kParts; ++part) {
    std::vector<double> values(kLength);
    for (int64_t i = 0; i < kLength; ++i) values[i] = 1.0 / static_cast<double>(1 + part * i);
    for (int64_t i = 0; i < kLength; ++i) expected[i] += values[i];
    if (ranks.Owns(part)) sum.Add(values);
  }
  KVC_CHECK(sum.Finish() == expected, kInternal, "sum: other bits");
}

int Main(const std::vector<std::string>& arguments) {
  const Launch launch = LaunchOfThisProcess();
  std::unique_ptr<Ranks> started;
  if (launch.size > 1) {
    started = StartMpi(launch, [](const std::string& text) {
      std::fprintf(stderr, "mpi_program: error: %s\n", text.c_str());
    });
  }
  Ranks& ranks = started ? *started : OneRank();
  CheckCollectives(ranks);
  CheckSum(ranks);
  ranks.Barrier();
  const std::string mode = arguments.empty() ? "" : arguments[0];
  const int failing = arguments.size() < 2 ? -1 : std::atoi(arguments[1].c_str());
  if (mode == "kill" && ranks.rank() == failing) std::raise(SIGKILL);
  if (mode == "all" || (mode == "throw" && ranks.rank() == failing)) {
    ranks.Abort(RankName(ranks) + ": weights: NaN", 3);
  }
  ranks.Barrier();
  if (ranks.is_first()) std::printf("ok %d\n", ranks.size());
  return 0;
}

}  // namespace
}  // namespace kvc

int main(int argc, char** argv) { return kvc::Main({argv + 1, argv + argc}); }
