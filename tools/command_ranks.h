#pragma once
// Starts a command's part among ranks (core/base/ranks.h): where a launcher has started several
// processes of it, and nothing otherwise.

#include <memory>
#include <string>

#include "core/base/ranks.h"

namespace kvc::tools {

// Tells whether a command shares its work among ranks.
enum class RankUse { kOne, kAny };

struct CommandRanks {
  std::unique_ptr<Ranks> launched;  // none: no launcher
  int cores = 0;                    // that this rank may use alone; 0: all of the machine's
  [[nodiscard]] Ranks& ranks() const { return launched ? *launched : OneRank(); }
};

// Prints the error of a command on stderr, in one line.
void PrintError(const std::string& command, const std::string& message);

// Starts the ranks of `command`. All must have the same arguments, version and OpenBLAS kernels.
// Throws kUsage when a launcher has started several processes of a command that takes no ranks,
// when they cannot talk, and when they differ; on a rank whose message should not be printed, as
// rank 0 prints the same, with an empty text.
[[nodiscard]] CommandRanks StartRanks(const std::string& command,
                                      RankUse use,
                                      int argc,
                                      char** argv);

}  // namespace kvc::tools
