#pragma once
// The stage that writes a bundle and verifies it, and the check of a bundle that is there.

#include <string>

#include "core/base/progress.h"
#include "core/base/thread_pool.h"
#include "core/io/json_fwd.h"
#include "core/io/output_directory.h"
#include "export/bundle/export_plan.h"

namespace kvc::bundle {

// Writes options.output, whole or not at all: model.onnx with its weights, tokenizer files, bases,
// manifest; runs it against the source model's logits unless options.no_verify. `evaluation` goes
// into the manifest as it is. Returns the command's JSON keys (CLI.md). Throws kVerification when
// the bundle does not reproduce its source, kUsage without an output.
[[nodiscard]] Json ExportBundle(const ExportPlan& plan,
                                const ExportOptions& options,
                                const Json& evaluation,
                                Progress& progress);

// The same into a folder that the caller has opened, before work that comes first.
[[nodiscard]] Json ExportBundle(const ExportPlan& plan,
                                const ExportOptions& options,
                                const Json& evaluation,
                                OutputDirectory& output,
                                Progress& progress);

// Hashes, structure and stored logits of a bundle, checked again. Throws kVerification naming the
// file or the difference.
[[nodiscard]] Json CheckBundle(const std::string& directory, ThreadPool& pool);

}  // namespace kvc::bundle
