#pragma once
// What kvc-export does: checkpoint + profile + budget -> bundle, and the check of a bundle.

#include "core/io/json_fwd.h"
#include "export/bundle/export_plan.h"
#include "pipeline/choose/auto_method.h"
#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc::tools {

struct ExportArguments {
  bundle::ExportOptions options;  // threads and seed come from CommonOptions
  choose::AutoOptions automatic;  // --method auto
  std::string verify;             // a bundle to check instead
};
void AddExportOptions(CLI::App& app, ExportArguments& arguments);

// Exports, or checks when arguments.verify is set. Returns the command's JSON keys (CLI.md); a
// failed check throws kVerification and leaves nothing behind.
[[nodiscard]] Json RunExport(ExportArguments arguments, const CommonOptions& common);

// The result as text on stdout.
void PrintExport(const Json& result);

}  // namespace kvc::tools
