#pragma once
// The weights of a Hugging Face directory by role: "the key projection of layer 3" instead of a
// tensor name, for every family, whether the file stores a matrix as [out, in] (Linear) or [in,
// out] (GPT-2's Conv1D), alone or fused (c_attn). Weights stay mapped; a load converts one matrix
// to float.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/checkpoint/model_config.h"
#include "core/checkpoint/windows.h"
#include "core/io/safetensors.h"

namespace kvc {

// The part that a weight plays in the model, with its shape.
enum class Role {
  // whole model (layer = -1)
  kEmbedding,          // [V, E]
  kPositionEmbedding,  // [context, E] (GPT-2)
  kFinalNorm,          // [E]
  kFinalNormBias,      // [E] (GPT-2)
  kLmHead,             // [V, E]; the embedding when tied
  // each layer
  kAttnNorm,
  kAttnNormBias,  // [E]
  kQ,
  kQBias,  // [H*D, E], [H*D]        kAbsorb, kRopePairs: [sum_h R_g(h), E]
  kK,
  kKBias,  // [G*D, E], [G*D]        kAbsorb, kLatent, kRopePairs: [sum_n R_n, E]; latent
           //                        keeps the bias [G*D], absorb has none
  kV,
  kVBias,  // [G*D, E], [G*D]
  kO,
  kOBias,  // [E, H*D], [E]
  kQNorm,
  kKNorm,        // [D] (Qwen3)
  kKRebuild,     // kLatent: B [G*D, max_n R_n], row g*D+d; head g of group n uses the
                 // first R_n columns: k_g = c_n B_g^T
  kKReduce,      // kPostRope: A^T [sum_g R_g, D], heads one after the other
  kKReduceBias,  // kPostRope: -mu A [sum_g R_g]
  kQReduce,      // kPostRope: B^T [sum_g R_g, D]
  kMlpNorm,
  kMlpNormBias,  // [E]
  kGate,
  kGateBias,  // [mlp, E], [mlp] (bias: Llama with mlp_bias); none in GPT-2
  kUp,
  kUpBias,  // [mlp, E], [mlp]
  kDown,
  kDownBias,  // [E, mlp], [E]
};

// The place of a role in the file: the tensor's name, whether the file holds it as [in, out], and
// for a fused tensor the slice of the output dimension.
struct WeightPlace {
  std::string name;
  bool transposed = false;
  int64_t out_begin = 0;  // first output row inside the stored tensor
  int64_t out_count = 0;  // 0: all
};

class Checkpoint {
 public:
  // Opens config.json and the tensors, and checks that every role that the config asks for is there
  // with the right shape. As in transformers, a tied pair may be saved under either name, and a
  // head of its own beside "tied" counts as one: config().tied_embeddings is false then. Throws kIo
  // when there is no directory; kBadInput or kBadShape naming the tensor, the expected and the
  // actual shape; kUnsupported for weights that are not floating-point.
  static Checkpoint Open(const std::filesystem::path& directory);

  [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }
  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const SafetensorsReader& tensors() const { return tensors_; }
  // What the user should know about the files, a line each: tensors that nothing reads, a head that
  // is not tied. Mostly none.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  // Narrows the windows of config() (core/checkpoint/windows.h); the files stay as they are.
  void NarrowWindows(int64_t tokens) { kvc::NarrowWindows(tokens, config_); }

  // True when the model has the role; `layer` is -1 for a role of the whole model. The functions
  // below throw kInternal for a role that it does not have.
  [[nodiscard]] bool Has(Role role, int64_t layer = -1) const;
  [[nodiscard]] WeightPlace Place(Role role, int64_t layer = -1) const;
  // The shape [out, in] or [out] of what Load returns.
  [[nodiscard]] std::vector<int64_t> Shape(Role role, int64_t layer = -1) const;
  // The role's weights as row-major floats [out, in], whatever the order in the file. Throws
  // kNumeric for a NaN or an infinity, naming the tensor and the first such element.
  [[nodiscard]] std::vector<float> Load(Role role, int64_t layer = -1) const;
  // The type that the model computes and caches in: kF32, kF16 or kBF16. config.json's, else the
  // stored embedding's; double counts as float.
  [[nodiscard]] DType OwnType() const;
  // The dtype in the file.
  [[nodiscard]] DType StoredType(Role role, int64_t layer = -1) const;
  // Releases the mapped pages of a layer's weights; a later load reads the file again.
  void ReleaseLayer(int64_t layer) const;

 private:
  Checkpoint(std::filesystem::path directory, ModelConfig config, SafetensorsReader tensors);
  void SettleHead();
  void CheckShapes() const;
  void CheckTensor(Role role, int64_t layer) const;
  void NoteUnannounced();
  void NoteIgnoredShare();

  std::filesystem::path directory_;
  ModelConfig config_;
  SafetensorsReader tensors_;
  std::string prefix_;  // "model.", "transformer." or ""
  std::vector<std::string> warnings_;
};

// The tokenizer and generation files of a directory that a derived checkpoint or bundle carries
// along: those that exist of tokenizer.json, tokenizer_config.json, special_tokens_map.json,
// added_tokens.json, tokenizer.model, vocab.json, merges.txt, encoder.json, vocab.bpe,
// generation_config.json and chat_template.jinja.
[[nodiscard]] std::vector<std::filesystem::path> CompanionFiles(
    const std::filesystem::path& directory);

}  // namespace kvc
