#pragma once
// The stage that writes a bundle and verifies it, and the check of a bundle that is there.

#include <cstdint>
#include <filesystem>
#include <optional>

#include "core/base/progress.h"
#include "core/base/thread_pool.h"
#include "core/cache/manifest.h"
#include "core/io/json_fwd.h"
#include "core/io/output_directory.h"
#include "export/bundle/export_plan.h"

namespace kvc::bundle {

struct ExportResult {
  std::filesystem::path bundle;
  std::optional<double> max_abs_error;  // of the logits; none: not verified
};

// Writes options.output, whole or not at all: model.onnx with its weights, tokenizer files, bases,
// manifest; runs it against the source model's logits unless options.no_verify. `evaluation` goes
// into the manifest as it is. Throws kVerification when the bundle does not reproduce its source,
// kUsage without an output.
[[nodiscard]] ExportResult ExportBundle(const ExportPlan& plan,
                                        const ExportOptions& options,
                                        const Json& evaluation,
                                        Progress& progress);

// The same into a folder that the caller has opened, before work that comes first.
[[nodiscard]] ExportResult ExportBundle(const ExportPlan& plan,
                                        const ExportOptions& options,
                                        const Json& evaluation,
                                        OutputDirectory& output,
                                        Progress& progress);

struct CheckResult {
  std::filesystem::path bundle;
  int64_t files = 0;                               // whose sizes and hashes are as recorded
  std::optional<VerificationRecord> verification;  // made anew; none: the bundle has no logits
};

// Hashes, structure and stored logits of a bundle, checked again. Throws kVerification naming the
// file or the difference.
[[nodiscard]] CheckResult CheckBundle(const std::filesystem::path& directory, ThreadPool& pool);

}  // namespace kvc::bundle
