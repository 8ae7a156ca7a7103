// kvc: what stands above the single commands. `kvc report DIR` lays out their results as tables.

#include "core/error.h"
#include "tools/common_options.h"
#include "tools/report.h"

int main(int argc, char** argv) {
  CLI::App app("Runs over the results of the other commands");
  kvc::tools::CommonOptions options;
  kvc::tools::AddCommonOptions(app,
                               options,
                               "  kvc report results\n"
                               "  kvc report --json results");
  std::string directory;
  app.fallthrough();
  CLI::App* report = app.add_subcommand("report", "Tables of the JSON results in a folder");
  report->add_option("dir", directory, "Folder of NAME.json files")->required();
  app.require_subcommand(1);
  return kvc::tools::RunCommand(
      argc,
      argv,
      "kvc",
      app,
      options,
      [&]() -> kvc::Json {
        KVC_CHECK(std::filesystem::is_directory(directory),
                  kIo,
                  directory,
                  ": expected a folder of results, got none");
        return {{"report", kvc::tools::ReportTables(directory)}};
      },
      [](const kvc::Json& result) { std::cout << result["report"].get<std::string>(); });
}
