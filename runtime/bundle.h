#pragma once
// A bundle in memory: its manifest, the mapped model and the plan. It depends on no device.

#include <filesystem>
#include <memory>
#include <span>

#include "core/base/thread_pool.h"
#include "core/cache/cache_geometry.h"

namespace kvc {
struct Manifest;  // core/cache/manifest.h
}  // namespace kvc

namespace kvc::runtime {

class Backend;         // runtime/backend.h
class PreparedModel;   // likewise
struct LayerRotation;  // runtime/plan/plan.h
struct Plan;           // likewise

struct LoadOptions {
  bool check_hashes = false;  // sizes are always checked
  // Layers with a window see at most so many tokens; 0: as many as the file says. For a test of
  // windows that its texts would not reach.
  int64_t narrow_windows = 0;
  bool pack_weights = true;  // a backend may store weights in fewer bytes if that loses nothing
};

// Immutable after loading: any number of sessions, on any threads, share one.
class Bundle {
 public:
  // Loads a bundle. Throws kBadInput / kVerification naming the field in which file and manifest
  // differ, kUnsupported naming the node of an operator that the plan cannot hold.
  static std::shared_ptr<const Bundle> Load(const std::filesystem::path& directory,
                                            const LoadOptions& options);
  // Loads a bundle without using threads; throws like the other overload.
  static std::shared_ptr<const Bundle> Load(const std::filesystem::path& directory,
                                            const LoadOptions& options,
                                            ThreadPool& /*pool*/) {
    return Load(directory, options);
  }
  ~Bundle();
  Bundle(const Bundle&) = delete;
  Bundle& operator=(const Bundle&) = delete;

  [[nodiscard]] const Manifest& manifest() const;
  [[nodiscard]] const std::filesystem::path& directory() const;
  [[nodiscard]] const Plan& plan() const;
  // Returns how a layer turns the queries of a sequence of `length` tokens.
  [[nodiscard]] LayerRotation rotation(int64_t layer, int64_t length) const;
  // Returns the model prepared for a backend: it is made for the first session on a backend of this
  // name, and shared by later ones while it lives. The bundle must outlive it.
  [[nodiscard]] std::shared_ptr<const PreparedModel> PreparedFor(Backend& backend) const;

 private:
  struct Contents;
  explicit Bundle(std::unique_ptr<Contents> contents);

  std::unique_ptr<Contents> contents_;
};

// Throws kBadShape when a policy's layers, groups and widths are not the manifest's.
void CheckSameGeometry(const CacheGeometry& cache, const CacheGeometry& manifest);

// Throws kVerification naming the field in which the graph's sizes and the manifest differ.
void CheckPlanAgainstManifest(const Plan& plan, const Manifest& manifest);

}  // namespace kvc::runtime
