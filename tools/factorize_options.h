#pragma once
// The options of kvc-factorize (CLI.md).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "factorize/factorize_model.h"
#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// The options as typed.
struct FactorizeArguments {
  factorize::FactorizeOptions options;
  std::string model, output;
  std::string layout = "auto";
  std::string rank = "25%";
  std::string objective = "auto";
  std::string calib_tokens = "16k";
  std::string window = "512";
  std::vector<std::string> calibration;
  std::vector<std::string> lengths = {"4k", "32k", "128k", "1M"};
  std::optional<int> ranks;  // of --dry-run; none: those that were started
  std::string svd;
  std::string source;
  std::vector<std::string> tune;
  std::string tune_tokens = "64k";
  std::optional<int64_t> passes;
  std::string step_tokens = "1024";
  std::optional<double> learning_rate;
  std::string loss;
  std::string precision = "auto";
};

void AddFactorizeOptions(CLI::App& app, FactorizeArguments& args);
// Returns the options that `app` parsed, as typed values. Throws kUsage naming the option, kDevice
// for a missing device.
[[nodiscard]] factorize::FactorizeOptions ResolveFactorizeOptions(const CLI::App& app,
                                                                  const FactorizeArguments& args,
                                                                  const CommonOptions& common);

}  // namespace kvc::tools
