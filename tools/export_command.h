#pragma once
// What kvc-export does: checkpoint + profile + budget -> bundle, and the check of a bundle.

#include <CLI/CLI.hpp>

#include "core/json.h"
#include "tools/common_options.h"
#include "tools/export_plan.h"

namespace kvc::tools {

void AddExportOptions(CLI::App& app, ExportOptions& options);

// Exports, or checks when options.verify is set. Returns the command's JSON keys (CLI.md); a failed
// check throws kVerification and leaves nothing behind.
[[nodiscard]] Json RunExport(const ExportOptions& options, const CommonOptions& common);

// The result as text on stdout.
void PrintExport(const Json& result);

}  // namespace kvc::tools
