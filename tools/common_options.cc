#include "tools/common_options.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <set>
#include <thread>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/exit_code.h"
#include "core/base/version.h"
#include "core/io/json.h"
#include "core/mpi/mpi_ranks.h"
#include "linalg/blas_kernels.h"
#include "tools/number_checks.h"

namespace kvc::tools {
namespace {

// Set by the signal handler, read at each progress report.
volatile std::sig_atomic_t g_interrupted = 0;

void OnSignal(int) {
  // A second signal ends a command that does not report progress.
  if (g_interrupted != 0) _exit(kExitInterrupted);
  g_interrupted = 1;
}

class StderrProgress : public Progress {
 public:
  StderrProgress(bool quiet, Ranks& ranks)
      : ranks_(ranks), quiet_(quiet || !ranks.is_first()), terminal_(isatty(STDERR_FILENO) == 1) {}
  ~StderrProgress() override { EndBar(); }

  void Report(const std::string& stage, int64_t done, int64_t total) override {
    KVC_CHECK(g_interrupted == 0, kInterrupted, "{}: interrupted", stage);
    ranks_.Poll();
    if (quiet_ || total <= 0) return;
    if (stage != stage_) {
      EndBar();
      stage_ = stage;
      start_ = std::chrono::steady_clock::now();
      last_tenth_ = 0;
      last_draw_ = {};
    }
    if (terminal_) {
      DrawBar(done, total);
    } else {
      const int64_t tenth = done * 10 / total;
      if (tenth > last_tenth_ || done == total) {
        if (tenth > last_tenth_) std::fprintf(stderr, "%s: %d%%\n", stage.c_str(), int(tenth) * 10);
        last_tenth_ = tenth;
      }
    }
  }

  void Log(const std::string& line) override {
    if (quiet_) return;
    EndBar();
    std::fprintf(stderr, "%s\n", line.c_str());
  }

  // Also when quiet, which is about progress.
  void Warn(const std::string& line) override {
    if (!ranks_.is_first() || !warned_.insert(line).second) return;
    EndBar();
    std::fprintf(stderr, "warning: %s\n", line.c_str());
  }

 private:
  void DrawBar(int64_t done, int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (done < total && now - last_draw_ < std::chrono::milliseconds(100)) return;
    last_draw_ = now;
    constexpr int kWidth = 30;
    const int filled = static_cast<int>(done * kWidth / total);
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    const double left = done > 0 ? elapsed * double(total - done) / double(done) : 0.0;
    std::fprintf(stderr, "\r%s [%s%s] %lld/%lld %.0fs left \x1b[K", stage_.c_str(),
                 std::string(filled, '#').c_str(), std::string(kWidth - filled, '.').c_str(),
                 static_cast<long long>(done), static_cast<long long>(total), left);
    bar_open_ = true;
    if (done == total) EndBar();
  }
  void EndBar() {
    if (bar_open_) std::fputc('\n', stderr);
    bar_open_ = false;
  }

  Ranks& ranks_;
  bool quiet_;
  bool terminal_;
  bool bar_open_ = false;
  std::string stage_;
  std::set<std::string> warned_;
  int64_t last_tenth_ = 0;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_draw_;
};

// Makes a lost reader of stdout a write error (SIGPIPE would end the command without a word), and
// keeps a file that is opened later from taking the descriptor of a closed stdin, stdout or stderr.
void PrepareStandardFiles() {
  std::signal(SIGPIPE, SIG_IGN);
  for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; ++descriptor) {
    // The descriptor is opened for reading only, so that writing to it fails as it would on the
    // closed one.
    if (::fcntl(descriptor, F_GETFD) < 0) (void)::open("/dev/null", O_RDONLY);
  }
}

// Checks that everything printed has arrived. Throws kIo.
void FlushStdout() {
  std::cout.flush();
  const bool flushed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  KVC_CHECK(flushed && std::cout.good(), kIo,
            "stdout: expected to write the result, got an error; is the disk full, or the reader "
            "gone?");
}

int Fail(const std::string& name, const std::string& message, int code) {
  PrintError(name, message);
  return code;
}

// Returns the text of an error. A device that a library refused without a remedy gets the one that
// always helps.
std::string TextOf(const Error& error) {
  const std::string text = error.what();
  const bool remedied = error.kind() != ErrorKind::kDevice || text.find("; ") != std::string::npos;
  return remedied ? text : text + "; use --device cpu";
}

int PrintHelp(const std::string& name, const CLI::App& app, const CLI::ParseError& request) {
  try {
    const int code = app.exit(request);
    FlushStdout();
    return code;
  } catch (const Error& error) {
    return Fail(name, error.what(), ExitCode(error.kind()));
  }
}

}  // namespace

void AddCommonOptions(CLI::App& app, CommonOptions& options, const std::string& examples) {
  app.set_version_flag("--version", [] {
    return "kvc " + std::string(Version()) + ", MPI " + MpiVersion() + ", OpenBLAS kernels " +
           linalg::BlasKernels();
  });
  app.add_flag("--json", options.json, "Print one JSON object on stdout, nothing else");
  app.add_option("--threads", options.threads, "Threads; 0: one per core")->capture_default_str();
  app.add_option("--seed", options.seed, "Seed of everything random")->capture_default_str();
  app.add_option("--device", options.device,
                 "auto, cpu, cuda or emulator (the CUDA code, on the CPU)")
      ->check(CLI::IsMember({"auto", "cpu", "cuda", "emulator"}))
      ->capture_default_str();
  app.add_flag("--dry-run", options.dry_run, "Print plan and sizes, write nothing");
  app.add_flag("--quiet", options.quiet, "No progress on stderr");
  app.footer("Examples:\n" + examples);
}

void AddExactOption(CLI::App& app, CommonOptions& options) {
  app.add_flag(
      "--exact", options.exact,
      "Never round activations to bf16 before products with bf16 weights (slower prompts)");
}

int CheckCommonOptions(const CommonOptions& options, DeviceUse use) {
  KVC_CHECK(options.threads >= 0, kUsage, "--threads: expected 0 or more, got {}", options.threads);
  const std::string& device = options.device;
  KVC_CHECK(device == "auto" || device == "cpu" || use == DeviceUse::kBackend ||
                (device == "cuda" && use == DeviceUse::kCuda),
            kDevice, "--device: expected {} for this command, got {}; use --device cpu",
            use == DeviceUse::kCuda ? "cpu or cuda" : "cpu", device);
  if (options.threads > 0) return options.threads;
  if (options.cores > 0) return options.cores;
  const unsigned cores = std::thread::hardware_concurrency();
  return cores > 0 ? static_cast<int>(cores) : 1;
}

std::string BackendDevice(const CommonOptions& options) {
  return options.device == "auto" ? "cpu" : options.device;
}

std::unique_ptr<Progress> MakeProgress(const CommonOptions& options) {
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  return std::make_unique<StderrProgress>(options.quiet, *options.ranks);
}

void WriteStdout(std::string_view text) {
  std::cout << text;
  FlushStdout();
}

bool TakeInterrupt() {
  const bool taken = g_interrupted != 0;
  g_interrupted = 0;
  return taken;
}

int64_t PeakRssBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

namespace {

// Returns the result's keys after those that every command has.
Json Framed(const std::string& name, double seconds, const Json& own) {
  Json result;
  result["kvc"] = Version();
  result["command"] = name;
  result["seconds"] = seconds;
  result["peak_rss_bytes"] = PeakRssBytes();
  for (const auto& [key, value] : own.items()) result[key] = value;
  return result;
}

// Prints a result on stdout; returns the exit code that it asks for.
int PrintResult(const std::string& name,
                const CommonOptions& options,
                double seconds,
                const CommandResult& result) {
  if (options.json || !result.print) {
    std::cout << Framed(name, seconds, result.json).dump(result.one_line ? -1 : 2) << '\n';
  } else {
    result.print();
  }
  FlushStdout();
  // A result can carry a failed gate: everything is printed, and the exit code says so.
  if (result.failed) return ExitCode(*result.failed);
  return result.gates_passed ? kExitDone : kExitVerification;
}

// Parses, calls `body` and prints its result on rank 0. `fail` returns the exit code of an error.
int ParseAndRun(int argc,
                char** argv,
                const std::string& name,
                CLI::App& app,
                CommonOptions& options,
                const std::function<CommandResult()>& body,
                const std::function<int(const std::string&, int)>& fail) {
  const bool prints = options.ranks->is_first();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help and version arrive as errors with code 0.
    if (error.get_exit_code() != 0) {
      return fail(std::string(error.what()) + "; see --help", kExitUsage);
    }
    return prints ? PrintHelp(name, app, error) : kExitDone;
  }
  const auto start = std::chrono::steady_clock::now();
  try {
    CheckFiniteOptions(app);
    const CommandResult result = body();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return prints ? PrintResult(name, options, seconds.count(), result) : kExitDone;
  } catch (const Error& error) {
    return fail(TextOf(error), ExitCode(error.kind()));
  } catch (const std::filesystem::filesystem_error& error) {
    return fail(error.what(), kExitIo);
  } catch (const std::bad_alloc&) {
    return fail("memory: expected enough for this model, got none left", kExitIo);
  } catch (const std::exception& error) {
    return fail(std::string("internal: ") + error.what(), kExitInternal);
  }
}

}  // namespace

int RunCommand(int argc,
               char** argv,
               const std::string& name,
               CLI::App& app,
               CommonOptions& options,
               const std::function<CommandResult()>& body,
               RankUse use) {
  linalg::UseFittingBlasKernels(argv);
  PrepareStandardFiles();
  app.name(name);
  CommandRanks started;
  try {
    started = StartRanks(name, use, argc, argv);
  } catch (const Error& error) {
    const std::string text = error.what();
    return text.empty() ? ExitCode(error.kind()) : Fail(name, text, ExitCode(error.kind()));
  }
  options.ranks = &started.ranks();
  options.cores = started.cores;
  const auto fail = [&](const std::string& message, int code) {
    if (!options.ranks->is_only()) {
      // Where ranks disagree, all throw the same message, which names the one that differs.
      const bool named = message.starts_with("rank ");
      // A launcher that interrupts all ranks, as when one of them was killed, has said why.
      const bool said = code == kExitInterrupted;
      const std::string text = named ? message : RankName(*options.ranks) + ": " + message;
      options.ranks->Abort(said ? "" : text, code);
    }
    return Fail(name, message, code);
  };
  return ParseAndRun(argc, argv, name, app, options, body, fail);
}

}  // namespace kvc::tools
