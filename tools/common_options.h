#pragma once
// What every command shares: the options of CLI.md's "Common to all", the progress bar, the frame
// of the JSON result, and the one place where an exception becomes a message and an exit code.

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/io/json.h"

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
};

// Adds --json, --threads, --seed, --device, --dry-run, --quiet, --version and -h/--help to `app`
// and `examples` (two worked ones) to its help text.
void AddCommonOptions(CLI::App& app, CommonOptions& options, const std::string& examples);

// Whether a command has anything to run on a CUDA device; kByCommand: it looks for one itself.
enum class CudaSupport { kNone, kByCommand };

// Checks what the parser cannot: kDevice for --device cuda with a command that has no use for it,
// kUsage for a negative thread count. Returns the number of threads to use.
[[nodiscard]] int CheckCommonOptions(const CommonOptions& options,
                                     CudaSupport cuda = CudaSupport::kNone);

// A bar on a terminal, one line for each tenth elsewhere, nothing with --quiet; all on stderr. Also
// turns SIGINT and SIGTERM into kInterrupted at the next report.
[[nodiscard]] std::unique_ptr<Progress> MakeProgress(const CommonOptions& options);

// What a command has done: its keys of the JSON object, and the same as text for people.
struct CommandResult {
  Json json;
  std::function<void()> print;  // on stdout; none: the JSON object is printed
  bool gates_passed = true;     // false: the exit code is that of a failed verification
};

// Runs a command: starts the program again where OpenBLAS has fitter kernels
// (linalg/blas_kernels.h), parses, calls `body`, prints its result, maps errors. "kvc", "command",
// "seconds" and "peak_rss_bytes" are put in front of the result's own keys. With --json the object
// is printed on stdout, else the text. A stdout that cannot take all of it is kIo.
int RunCommand(int argc,
               char** argv,
               const std::string& name,
               CLI::App& app,
               CommonOptions& options,
               const std::function<CommandResult()>& body);

// The same for a command whose result is its JSON, and whose text is printed from that.
int RunCommand(int argc,
               char** argv,
               const std::string& name,
               CLI::App& app,
               CommonOptions& options,
               const std::function<Json()>& body,
               const std::function<void(const Json&)>& print_text);

// Highest resident set of this process so far.
[[nodiscard]] int64_t PeakRssBytes();

}  // namespace kvc::tools
