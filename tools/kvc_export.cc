// kvc-export: writes a checkpoint as a bundle with a cache budget, and checks bundles.

#include <CLI/CLI.hpp>

#include "tools/export_command.h"

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Writes a checkpoint as an ONNX bundle with a cache budget");
  CommonOptions common;
  ExportArguments arguments;
  AddExportOptions(app, arguments);
  AddCommonOptions(app, common,
                   "  kvc-export thin-model -o bundle --budget 25% --profile profile\n"
                   "  kvc-export --verify bundle --json");
  return RunCommand(
      argc, argv, "kvc-export", app, common, [&] { return RunExport(arguments, common); },
      RankUse::kAny);
}
