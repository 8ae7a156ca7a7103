// `kvc plan` in a build without ONNX, whose runtime knows what a prompt takes.

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "tools/plan_command.h"

namespace kvc::tools {

void AddPlanOptions(CLI::App& app, PlanOptions& options) {
  app.add_option("model", options.directory, "Not in this build")->required();
}

CommandResult RunPlan(const PlanOptions& /*options*/, const CommonOptions& /*common*/) {
  KVC_THROW(kUnsupported,
            "kvc plan: expected a build with ONNX, got one without; configure with "
            "-DKVC_ONNX=ON");
}

}  // namespace kvc::tools
