#pragma once
// All trainable weights of a decoder in one flat buffer, and views of it by role. An optimizer step
// is then a handful of operations on the buffer, a sum of gradients is one addition, and a snapshot
// is one copy.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/checkpoint/model_config.h"
#include "model/tensor_fwd.h"

namespace kvc::model {

// One weight: a Hugging Face tensor and its place in the flat buffer.
struct Parameter {
  std::string name;                                     // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;                           // [out, in] or [out]
  int64_t layer = -1;                                   // -1: outside the layers
  torch::Tensor LayerWeights::*layer_member = nullptr;  // where a replica puts it
  torch::Tensor OuterWeights::*outer_member = nullptr;
  double init_std = 0;    // of the normal distribution; 0: every element is init_value
  double init_value = 0;  // 1 for norms, 0 for biases
  int64_t offset = 0;     // first element in the flat buffer
  int64_t count = 0;      // elements
};

// Returns thin keys to train from scratch: the R/2 rotation pairs j = i D/R, i = 0 .. R/2 - 1, of
// every kv head. If R divides D, their frequencies are those of a rotary embedding on R dimensions,
// so the rotation works on the thin width. Throws kUsage for a rank that is odd or above D.
[[nodiscard]] KeyFactors ThinKeysFromScratch(const ModelConfig& config, int64_t rank);

// The weights of a configuration: matrices first (they are decayed), then vectors (they are not).
class ParameterList {
 public:
  // Supports the rotary families llama, mistral, qwen2 and qwen3. Throws kUnsupported, naming the
  // cause, for other families and for thin keys other than rope-pairs.
  explicit ParameterList(const ModelConfig& config);

  [[nodiscard]] const std::vector<Parameter>& all() const { return all_; }
  [[nodiscard]] int64_t count() const { return count_; }                // elements of all
  [[nodiscard]] int64_t matrix_count() const { return matrix_count_; }  // elements of matrices

  // Returns random initial values [count]. Matrices are normal with standard deviation 1/sqrt(in),
  // divided by sqrt(2 L) if they add to the residual stream, times sqrt(D/R) for thin queries.
  // Embeddings have 0.1, so that the first layers do not drown a token. Norms are 1.
  [[nodiscard]] torch::Tensor Initialize(Rng& rng) const;
  // Makes head 0 of the first layer start as one that attends to the previous token, by position
  // alone: the first column of the embeddings becomes a constant, and the head's projections read
  // only that column, into rotation pairs whose angles agree at distance 1. Looking something up
  // takes such a head and a second one after it, and neither is of use alone; with the first in
  // place the second is learned soon. The head is trained like every other weight. Supports full
  // keys only.
  void StartPreviousTokenHead(const ModelConfig& config, torch::Tensor& values) const;
  // Reads the weights of a checkpoint [count] as float. Throws kBadInput for a missing tensor,
  // kBadShape for another shape.
  [[nodiscard]] torch::Tensor Read(const std::filesystem::path& directory) const;
  // Writes `values` [count] as model.safetensors, in the stored type, to `path`.
  void Write(const torch::Tensor& values, DType dtype, const std::filesystem::path& path) const;

 private:
  void Add(Parameter parameter);
  [[nodiscard]] const Parameter& Get(const std::string& name) const;

  std::vector<Parameter> all_;
  int64_t count_ = 0;
  int64_t matrix_count_ = 0;
};

}  // namespace kvc::model
