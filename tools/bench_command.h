#pragma once
// Measurements of kvc-bench: tokens per second of a bundle at several depths, and the decode
// attention kernel alone on a shape.
//
// Rates are those of the shortest of several repetitions ("best"), of the median one, and their
// mean and standard deviation. Read rates are in 10^9 bytes per second, listed with the rate that
// this machine's memory reaches in the same run (bench/support/read_bandwidth.h).

#include <filesystem>
#include <string>
#include <vector>

#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc::tools {

struct BenchOptions {
  std::string bundle;
  std::string prompt = "512";  // tokens of the separately measured prefill
  std::string decode = "64";   // tokens decoded at each depth
  std::vector<std::string> depths = {"0", "1k", "4k"};
  std::vector<std::filesystem::path> text;  // what the prompts hold; empty: random token ids
  int64_t repetitions = 3;
  int64_t batch = 1;   // sequences that decode together
  std::string budget;  // empty: the manifest's
};
void AddBenchOptions(CLI::App& app, BenchOptions& options);

// Measures a bundle (bench/support/bundle_speed.h). Returns the keys
//   device, batch, budget
//   prompt   {tokens, tokens_per_second {best, median, mean, deviation}}
//   depths   [{depth, prefill_tokens, prefill_tokens_per_second, decode_tokens_per_second
//             {best, median, mean, deviation}, cache, attention_gb_per_second}]
//   peak_device_bytes   the most that kvc has held of a device's own memory
[[nodiscard]] CommandResult RunBench(const BenchOptions& options, const CommonOptions& common);

struct AttentionBenchOptions {
  std::vector<std::string> shapes;  // bench/support/attention_shape.h
  int64_t repetitions = 200;
  int64_t checked_heads = 16;  // query heads whose error is measured, on a device
};
void AddAttentionBenchOptions(CLI::App& app, AttentionBenchOptions& options);
// Measures the processor's kernel, or a device's with --device cuda or emulator.
[[nodiscard]] CommandResult RunAttentionBench(const AttentionBenchOptions& options,
                                              const CommonOptions& common);
// The processor's. Returns shapes: [{shape, layer_bytes, microseconds {best, median},
// gb_per_second, of_read_bandwidth}]
[[nodiscard]] CommandResult RunHostAttentionBench(const AttentionBenchOptions& options,
                                                  const CommonOptions& common);
// A device's (bench/device). Returns device, device_name, emulated (then times are the host's),
// flushed_bytes (written before each launch), copy_gb_per_second, peak_device_bytes and shapes:
// [{shape, bytes, reader, microseconds {best, median, p10, p90}, gb_per_second, of_copy,
// largest_error}]; rates are those of the median.
[[nodiscard]] CommandResult RunDeviceAttentionBench(const AttentionBenchOptions& options,
                                                    const CommonOptions& common);
// What turning working blocks into tiers costs a device. Returns the same keys, and shapes:
// [{shape, launch (gather, or project where tiers are narrow), full_bytes, read_bytes, kept_bytes,
// share_kept, microseconds, microseconds_with_lists (behind the upload of what the launch reads
// from the host), gb_per_second (read and written), of_copy, largest_error}].
[[nodiscard]] CommandResult RunCompressBench(const AttentionBenchOptions& options,
                                             const CommonOptions& common);

}  // namespace kvc::tools
