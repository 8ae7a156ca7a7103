#pragma once
// Bundles made from golden checkpoints, and what tests ask of them.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/cache/cache_spec.h"
#include "runtime/session.h"

namespace kvc::testing {

// tests/golden/models/<name>
std::filesystem::path GoldenModel(const std::string& name);

// Exports `model` into `directory` as model.onnx and a manifest without policy (kFull).
void WriteBundle(const std::filesystem::path& model,
                 const std::filesystem::path& directory,
                 DType dtype = DType::kF32);

// A policy for a bundle's geometry: every group gets `budget` rows (by_share: of the length).
CacheSpec Policy(const CacheSpec& geometry,
                 Method method,
                 ScorerKind scorer,
                 double budget,
                 bool by_share = true);

// Token ids and logits [T, V] of a golden.safetensors.
struct GoldenLogits {
  std::vector<int32_t> ids;
  std::vector<float> logits;
};
GoldenLogits ReadGolden(const std::filesystem::path& file);

// Logits of the whole prompt [T, V].
std::vector<float> PrefillAll(runtime::Session& session,
                              runtime::Sequence& sequence,
                              const std::vector<int32_t>& ids);
// Logits of the last token [V].
std::vector<float> PrefillLast(runtime::Session& session,
                               runtime::Sequence& sequence,
                               const std::vector<int32_t>& ids);
// Logits after one more token [V].
std::vector<float> DecodeOne(runtime::Session& session, runtime::Sequence& sequence, int32_t id);

// Largest |a - b|; infinity when sizes differ or a NaN is among them.
double MaxDifference(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace kvc::testing
