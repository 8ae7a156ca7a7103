// kvc-bench: measures how fast a bundle runs at several depths, how fast attention reads a cache,
// and what compressing one costs.

#include <CLI/CLI.hpp>

#include "tools/bench_command.h"

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Measures speed: prefill and decode of a bundle at depths, the attention kernel");
  CommonOptions common;
  BenchOptions bundle;
  AttentionBenchOptions attention;
  AddBenchOptions(app, bundle);
  AddExactOption(app, common);
  AddCommonOptions(app, common,
                   "  kvc-bench bundle --prompt 512 --decode 64 --depths 0,1k,4k,8k\n"
                   "  kvc-bench attention --shape heads=9,kv=3,width=64,tokens=4k,dtype=f32\n"
                   "  kvc-bench compress --device cuda --shape tokens=32k,budget=25%,dtype=bf16");
  app.fallthrough();
  CLI::App* kernel = app.add_subcommand("attention", "The decode attention kernel on shapes");
  AddAttentionBenchOptions(*kernel, attention);
  AttentionBenchOptions compress;
  CLI::App* rows = app.add_subcommand("compress", "Making tiers of working blocks, on a device");
  AddAttentionBenchOptions(*rows, compress);
  return RunCommand(argc, argv, "kvc-bench", app, common, [&] {
    if (rows->parsed()) return RunCompressBench(compress, common);
    return kernel->parsed() ? RunAttentionBench(attention, common) : RunBench(bundle, common);
  });
}
