#pragma once
// The command kvc-export: checkpoint + profile + budget -> bundle, and the check of a bundle.

#include <string>
#include <vector>

#include "export/bundle/export_plan.h"
#include "pipeline/choose/choose_composition.h"
#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// The options of --method auto as typed.
struct AutoArguments {
  std::vector<std::string> candidates;  // CHECKPOINT[,PROFILE]
  std::vector<std::string> policies;
  std::string context = "1024";
  std::string decode = "128";
  choose::ChooseRequest request;  // texts, haystack, samples, needles
};

struct ExportArguments {
  bundle::ExportOptions options;  // values given as text are in options.texts until they are parsed
  AutoArguments automatic;
  std::string verify;  // a bundle to check instead
};
void AddExportOptions(CLI::App& app, ExportArguments& arguments);

// Exports, or checks when arguments.verify is set. A failed check throws kVerification and leaves
// nothing on disk.
[[nodiscard]] CommandResult RunExport(ExportArguments arguments, const CommonOptions& common);

}  // namespace kvc::tools
