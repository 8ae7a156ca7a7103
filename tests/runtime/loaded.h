#pragma once
// Sessions on bundles of the golden models, of every layout of keys.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "core/cache/manifest.h"
#include "kernels/cuda/runtime.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/sequence.h"
#include "runtime/session.h"
#include "tests/runtime/test_bundles.h"
#include "tests/support/golden_names.h"
#include "tests/support/temp_dir.h"

namespace kvc::runtime {

inline constexpr int64_t kVocabulary = 96;

inline std::vector<int32_t> RandomIds(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.NextBelow(kVocabulary));
  return ids;
}

// A golden model, and the backend on which it runs: "cpu", "fenced" or "emulator".
struct LayoutCase {
  LayoutCase(const char* a_model, const char* a_backend = "cpu")  // NOLINT(*-explicit-*)
      : model(a_model), backend(a_backend) {}
  std::string model;
  std::string backend;
};

inline void PrintTo(const LayoutCase& layout, std::ostream* out) {
  *out << layout.model << " on " << layout.backend;
}

std::unique_ptr<Session> SessionOn(const std::string& backend,
                                   std::shared_ptr<const Bundle> bundle,
                                   ThreadPool& pool);

// A bundle of a golden model and a session on it.
struct Loaded {
  explicit Loaded(const LayoutCase& layout, DType dtype = DType::kF32, int threads = 2)
      : pool(threads) {
    testing::WriteBundle(testing::GoldenModel(layout.model), directory.path(), dtype);
    bundle = Bundle::Load(directory.path(), {});
    session = SessionOn(layout.backend, bundle, pool);
  }
  [[nodiscard]] const CacheSpec& geometry() const { return bundle->manifest().cache; }
  std::unique_ptr<Sequence> New(const CacheSpec& spec,
                                DecodePolicy policy = DecodePolicy::kReallocate) {
    SequenceOptions options;
    options.cache = spec;
    options.decode = policy;
    return session->NewSequence(options);
  }

  // A sequence for each policy behind one prefill of `ids`, and the logits of its last token.
  struct Together {
    std::vector<std::unique_ptr<Sequence>> sequences;
    std::vector<float> logits;
  };
  Together PrefillTogether(const std::vector<CacheSpec>& specs, const std::vector<int32_t>& ids) {
    Together together;
    std::vector<Sequence*> sequences;
    for (const CacheSpec& spec : specs) {
      together.sequences.push_back(New(spec));
      sequences.push_back(together.sequences.back().get());
    }
    together.logits.resize(kVocabulary);
    session->Prefill(sequences, ids, MatrixF(together.logits.data(), 1, kVocabulary));
    return together;
  }

  // Ids of `count` tokens, or of as many as the context has room for behind `length`.
  [[nodiscard]] std::vector<int32_t> More(int64_t count, int64_t length, uint64_t seed) const {
    return RandomIds(std::min(count, bundle->manifest().model.context_length - length), seed);
  }

  testing::TempDir directory;
  ThreadPool pool;
  std::shared_ptr<const Bundle> bundle;
  std::unique_ptr<Session> session;
};

inline const SequenceCache& CacheOf(const Sequence& sequence) { return sequence.cache(); }

// Not where keys are thin behind their rotation.
inline bool QueriesCanTurn(const LayoutCase& layout) {
  const std::string& model = layout.model;
  return model.find("post-rope") == std::string::npos &&
         model.find("rope-pairs") == std::string::npos;
}

// Golden models of every family and layout.
inline const std::vector<const char*>& Layouts() {
  static const std::vector<const char*> kLayouts = {"gpt2",
                                                    "llama",
                                                    "mistral",
                                                    "qwen3",
                                                    "gpt2-absorb",
                                                    "llama-latent",
                                                    "qwen2-latent",
                                                    "qwen3-latent",
                                                    "llama-post-rope",
                                                    "qwen3-post-rope",
                                                    "qwen2-rope-pairs",
                                                    "mistral-rope-pairs"};
  return kLayouts;
}

// Golden models on the backends that are quick.
template <class Names>
std::vector<LayoutCase> OnBackends(const Names& models) {
  std::vector<LayoutCase> cases;
  for (const char* backend : {"cpu", "fenced"}) {
    for (const auto& model : models) cases.emplace_back(std::string(model).c_str(), backend);
  }
  return cases;
}
// Every layout on the processor, and one of each kind on the other backends, whose own tests hold
// every layout to the processor's numbers (fenced_backend_test.cc, cuda_backend_test.cc).
inline std::vector<LayoutCase> LayoutsOnBackends() {
  std::vector<LayoutCase> cases(Layouts().begin(), Layouts().end());
  for (const char* backend : {"fenced", "emulator"}) {
    if (backend == std::string("emulator") && cuda::DeviceKind() != "emulator") continue;
    for (const char* model : {"gpt2", "qwen3-latent", "llama-post-rope", "mistral-rope-pairs"}) {
      cases.emplace_back(model, backend);
    }
  }
  return cases;
}

inline std::string LayoutName(const ::testing::TestParamInfo<LayoutCase>& info) {
  std::string name = info.param.model + "_" + info.param.backend;
  std::ranges::replace(name, '-', '_');
  return name;
}

}  // namespace kvc::runtime
