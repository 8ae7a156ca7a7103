#pragma once
// Names of the golden models, and of tests that take them.

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace kvc::testing {

// Directories in tests/golden/models.
inline std::vector<std::string> GoldenNames() {
  return {"gpt2",
          "gpt2-bare",
          "llama",
          "llama-bias",
          "mistral",
          "qwen2",
          "qwen3",
          "gpt2-absorb",
          "llama-latent",
          "qwen2-latent",
          "qwen3-latent",
          "llama-post-rope",
          "qwen3-post-rope",
          "qwen2-rope-pairs",
          "mistral-rope-pairs",
          "mistral-window",
          "qwen2-window",
          "qwen3-window",
          "mistral-window-latent",
          "mistral-window-rope-pairs",
          "qwen3-window-post-rope",
          "llama-yarn",
          "stablelm",
          "smollm3",
          "olmo2",
          "llama-yarn-latent",
          "llama-yarn-post-rope",
          "llama-yarn-rope-pairs",
          "stablelm-latent",
          "stablelm-post-rope",
          "smollm3-latent",
          "smollm3-post-rope",
          "smollm3-rope-pairs",
          "olmo2-post-rope"};
}
// Those whose angles depend on the length, so that a prompt's logits are not those of its tokens
// one after the other.
inline std::vector<std::string> LengthDependentNames() {
  return {"llama-dynamic", "mistral-longrope", "mistral-longrope-post-rope",
          "mistral-longrope-rope-pairs"};
}

// Golden models of few tokens, for logits alone.
inline std::vector<std::string> ShortGoldenNames() { return {"llama-gelu"}; }

// For INSTANTIATE_TEST_SUITE_P: a test is called as its parameter, which is a text; gtest allows no
// '-' in it.
struct ParameterName {
  template <class T>
  std::string operator()(const ::testing::TestParamInfo<T>& test) const {
    std::string name = test.param;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
  }
};

}  // namespace kvc::testing
