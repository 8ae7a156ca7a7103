#pragma once
// A bundle in memory: manifest, mapped model, plan and packed weights.

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "core/cache/manifest.h"
#include "runtime/cpu/cpu_model.h"
#include "runtime/load/graph.h"
#include "runtime/plan/plan.h"
#include "runtime/session.h"

namespace kvc::runtime {

// The only implementation of Bundle.
class LoadedBundle : public Bundle {
 public:
  LoadedBundle(std::filesystem::path directory,
               Manifest manifest,
               Model model,
               const LoadOptions& options,
               ThreadPool& pool);

  [[nodiscard]] const Manifest& manifest() const override { return manifest_; }
  [[nodiscard]] const std::filesystem::path& directory() const override { return directory_; }
  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] const CpuModel& prepared() const { return prepared_; }
  // [D/2]; empty for models without rotation.
  [[nodiscard]] std::span<const double> rope_frequencies() const { return rope_frequencies_; }

 private:
  std::filesystem::path directory_;
  Manifest manifest_;
  Model model_;
  Plan plan_;
  CpuModel prepared_;  // behind model and plan, which it points into
  std::vector<double> rope_frequencies_;
};

// Throws kBadShape when a policy's layers, groups and widths are not the manifest's.
void CheckSameGeometry(const CacheSpec& spec, const CacheSpec& manifest);

// Throws kVerification naming the field in which the graph's sizes and the manifest differ.
void CheckPlanAgainstManifest(const Plan& plan, const Manifest& manifest);

}  // namespace kvc::runtime
