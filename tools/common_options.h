#pragma once
// Shared parts of every command: the options of CLI.md's "Common to all", the progress bar, the
// frame of the JSON result, and the one place where an exception becomes a message and an exit
// code.

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/io/json.h"
#include "tools/command_ranks.h"

namespace CLI {
class App;
}

namespace kvc::tools {

struct CommonOptions {
  bool json = false;
  bool dry_run = false;
  bool quiet = false;
  int threads = 0;  // 0: one per core
  uint64_t seed = 42;
  std::string device = "auto";
  bool exact = false;  // of commands that run bundles
  // Set by RunCommand: the ranks that share the work, and the processors of this one (0: all).
  Ranks* ranks = &OneRank();
  int cores = 0;
};

// Adds --json, --threads, --seed, --device, --dry-run, --quiet, --version and -h/--help to `app`
// and `examples` (two worked ones) to its help text.
void AddCommonOptions(CLI::App& app, CommonOptions& options, const std::string& examples);

// Adds --exact, for commands that run bundles.
void AddExactOption(CLI::App& app, CommonOptions& options);

// Devices of a command: the processor alone; a CUDA device that the command looks for itself
// (tuning and decompositions); any that the runtime has a backend for.
enum class DeviceUse { kCpu, kCuda, kBackend };

// Checks what the parser cannot. Throws kDevice for a device that is none of the command's, kUsage
// for a negative thread count. Returns the number of threads to use.
[[nodiscard]] int CheckCommonOptions(const CommonOptions& options, DeviceUse use = DeviceUse::kCpu);

// Returns the device of the runtime's backend (RuntimeOptions::device): cpu for auto.
[[nodiscard]] std::string BackendDevice(const CommonOptions& options);

// Returns a bar on a terminal, one line for each tenth elsewhere, nothing with --quiet and on ranks
// but the first; all on stderr. Also turns SIGINT and SIGTERM into kInterrupted at the next report.
[[nodiscard]] std::unique_ptr<Progress> MakeProgress(const CommonOptions& options);

// Returns true once for each interrupt, which then ends nothing: for commands that go on.
[[nodiscard]] bool TakeInterrupt();

// Result of a command: its keys of the JSON object, and the same as text for people.
struct CommandResult {
  Json json;
  std::function<void()> print;           // on stdout; none: the JSON object is printed
  bool gates_passed = true;              // false: the exit code is that of a failed verification
  std::optional<ErrorKind> failed = {};  // the exit code is that of this kind
  bool one_line = false;                 // the object stands on one line
};

// Runs a command: starts the program again if OpenBLAS has faster kernels for this processor
// (linalg/blas_kernels.h), parses, calls `body`, prints its result, maps errors. "kvc", "command",
// "seconds" and "peak_rss_bytes" are put before the result's own keys. With --json the object is
// printed on stdout, otherwise the text. Throws kIo when stdout cannot take all of it.
//
// Where a launcher has started several processes, `use` says whether they share the work through
// options.ranks: every rank calls `body`, rank 0 prints its result, and the others' are ignored. An
// error of any rank ends all of them with its exit code and one message, which names the rank.
int RunCommand(int argc,
               char** argv,
               const std::string& name,
               CLI::App& app,
               CommonOptions& options,
               const std::function<CommandResult()>& body,
               RankUse use = RankUse::kOne);

// Writes a part of a result on stdout at once, whoever reads it. Throws kIo where it cannot arrive.
void WriteStdout(std::string_view text);

// Returns the highest resident set of this process so far.
[[nodiscard]] int64_t PeakRssBytes();

}  // namespace kvc::tools
