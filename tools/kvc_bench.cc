// kvc-bench: measures how fast a bundle runs at several depths, and how fast its attention reads
// the cache.

#include <CLI/CLI.hpp>

#include "tools/bench_command.h"

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Measures speed: prefill and decode of a bundle at depths, the attention kernel");
  CommonOptions common;
  BenchOptions bundle;
  AttentionBenchOptions attention;
  AddBenchOptions(app, bundle);
  AddCommonOptions(app, common,
                   "  kvc-bench bundle --prompt 512 --decode 64 --depths 0,1k,4k,8k\n"
                   "  kvc-bench attention --shape heads=9,kv=3,width=64,tokens=4k,dtype=f32");
  app.fallthrough();
  CLI::App* kernel = app.add_subcommand("attention", "The decode attention kernel on shapes");
  AddAttentionBenchOptions(*kernel, attention);
  return RunCommand(argc, argv, "kvc-bench", app, common, [&] {
    return kernel->parsed() ? RunAttentionBench(attention, common) : RunBench(bundle, common);
  });
}
