#pragma once
// manifest.json of a bundle: what the runtime needs to execute the cache policy, and the proof of
// where the bundle comes from. Schema: docs/formats/manifest.md.
//
// Goals: one file that a person can read; a key at the top or inside "cache" that this version does
// not know is refused, because it may change what the cache must do; every file of the bundle has
// its hash here. Non-goals: weights, curves, anything large.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/cache/cache_spec.h"
#include "core/checkpoint/model_config.h"
#include "core/io/json.h"

namespace kvc {

inline constexpr int64_t kManifestSchema = 1;

struct FileRecord {
  std::string sha256;
  int64_t bytes = 0;
};

struct SolverRecord {
  double objective = 0.0;  // loss at the chosen budgets
  double bound = 0.0;      // lower bound of every solution's loss
  double gap = 0.0;        // objective - bound, >= 0
};

struct VerificationRecord {
  bool done = false;
  double max_abs_error = 0.0;  // logits of the bundle against the source model's
  double tolerance = 0.0;
  int64_t tokens = 0;
};

struct Manifest {
  std::string tool_version;
  Json options;             // every option of the export, and its seed
  std::string source_name;  // last component of the source directory
  std::map<std::string, FileRecord> source_files;
  DType weights_dtype = DType::kF32;  // of the matrices in model.onnx.data
  ModelConfig model;                  // written as config.json's own object
  CacheSpec cache;
  Budget budget;               // as asked for
  std::string profile_sha256;  // empty when no profile was used
  Json importance;             // method and [L][G] values; null when there is none
  SolverRecord solver;
  int64_t reference_length = 0;
  std::vector<std::pair<int64_t, CacheBytes>> expected_bytes;  // at several lengths
  VerificationRecord verification;
  Json evaluation;                          // null until kvc-eval's results are attached
  std::map<std::string, FileRecord> files;  // every other file of the bundle
};

[[nodiscard]] Json ToJson(const Manifest& manifest);
// SHA-256 of the cache's policy as JSON, which model.onnx carries in its metadata_props
// (docs/formats/onnx.md): graph and manifest belong together.
[[nodiscard]] std::string CacheDigest(const Manifest& manifest);
// SHA-256 of a manifest's JSON, compact and without its key "sha256", whose value it is: no field
// changes unnoticed (kvc-export --verify).
[[nodiscard]] std::string ManifestDigest(Json manifest);
// Throws kBadInput naming the key that is missing, unknown or of the wrong type.
[[nodiscard]] Manifest ManifestFromJson(const Json& json, const std::string& origin);
[[nodiscard]] Manifest ReadManifest(const std::filesystem::path& bundle);
// Reads a manifest, and the bases that its cache needs from the file beside it: what WithBudget,
// PredictBytes and a sequence ask for. Throws like ReadManifest, ReadBases and CheckBasesFit.
[[nodiscard]] Manifest ReadManifestAndBases(const std::filesystem::path& bundle);
// Checks that every file listed exists with its size and hash; throws kVerification naming the
// file, expected and actual. `hashes` false checks sizes only (the runtime's quick start).
void CheckBundleFiles(const Manifest& manifest, const std::filesystem::path& bundle, bool hashes);
// Checks that manifest.json is as it was written (one of an older version, without "sha256", is
// taken as it is), and that the bundle holds no file besides it and those that it lists, hidden
// ones apart: a generation_config.json that was added changes what runs. Throws kVerification.
void CheckBundleIsWhole(const Manifest& manifest, const std::filesystem::path& bundle);

}  // namespace kvc
