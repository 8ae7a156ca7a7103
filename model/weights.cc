#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "model/decoder.h"
#include "model/embedding_rows.h"

namespace kvc::model {
namespace {

// Returns a float32 tensor that owns what Load returned, without a copy.
torch::Tensor TakeTensor(std::vector<float> values, const std::vector<int64_t>& shape) {
  const auto owner = std::make_shared<std::vector<float>>(std::move(values));
  // The tensor's deleter holds a share of `owner` and dies with the tensor.
  return torch::from_blob(
      owner->data(), shape, [owner](void*) {}, torch::kFloat32);
}

// Returns the role's weight, or an undefined tensor when the checkpoint has none. Releases the
// mapped pages at once: a layer in memory takes its floats, not the file as well.
torch::Tensor LoadOptional(const Checkpoint& checkpoint, Role role, int64_t layer) {
  if (!checkpoint.Has(role, layer)) {
    return {};
  }
  torch::Tensor weight = TakeTensor(checkpoint.Load(role, layer), checkpoint.Shape(role, layer));
  checkpoint.tensors().Release(checkpoint.Place(role, layer).name);
  return weight;
}

}  // namespace

LayerWeights LoadLayer(const Checkpoint& checkpoint, int64_t layer) {
  const auto load = [&](Role role) { return LoadOptional(checkpoint, role, layer); };
  LayerWeights weights;
  weights.attn_norm = load(Role::kAttnNorm);
  weights.attn_norm_bias = load(Role::kAttnNormBias);
  weights.q = load(Role::kQ);
  weights.q_bias = load(Role::kQBias);
  weights.k = load(Role::kK);
  weights.k_bias = load(Role::kKBias);
  weights.v = load(Role::kV);
  weights.v_bias = load(Role::kVBias);
  weights.o = load(Role::kO);
  weights.o_bias = load(Role::kOBias);
  weights.q_norm = load(Role::kQNorm);
  weights.k_norm = load(Role::kKNorm);
  weights.k_rebuild = load(Role::kKRebuild);
  weights.k_reduce = load(Role::kKReduce);
  weights.k_reduce_bias = load(Role::kKReduceBias);
  weights.q_reduce = load(Role::kQReduce);
  weights.mlp_norm = load(Role::kMlpNorm);
  weights.mlp_norm_bias = load(Role::kMlpNormBias);
  weights.gate = load(Role::kGate);
  weights.gate_bias = load(Role::kGateBias);
  weights.up = load(Role::kUp);
  weights.up_bias = load(Role::kUpBias);
  weights.down = load(Role::kDown);
  weights.down_bias = load(Role::kDownBias);
  return weights;
}

OuterWeights LoadHead(const Checkpoint& checkpoint) {
  const auto load = [&](Role role) { return LoadOptional(checkpoint, role, -1); };
  OuterWeights outer;
  outer.final_norm = load(Role::kFinalNorm);
  outer.final_norm_bias = load(Role::kFinalNormBias);
  outer.lm_head = load(Role::kLmHead);
  if (checkpoint.config().tied_embeddings) outer.embedding = outer.lm_head;
  return outer;
}

OuterWeights LoadOuter(const Checkpoint& checkpoint) {
  OuterWeights outer = LoadHead(checkpoint);
  if (!outer.embedding.defined()) {
    outer.embedding = LoadOptional(checkpoint, Role::kEmbedding, -1);
  }
  outer.position_embedding = LoadOptional(checkpoint, Role::kPositionEmbedding, -1);
  return outer;
}

torch::Tensor LoadEmbeddingRows(const Checkpoint& checkpoint, std::span<const int32_t> ids) {
  const int64_t width = checkpoint.config().model_width;
  const std::string name = checkpoint.Place(Role::kEmbedding).name;
  const TensorRef& table = checkpoint.tensors().Get(name);  // [V, E]
  const int64_t row_bytes = width * DTypeBytes(table.dtype);
  std::vector<float> rows(ids.size() * width);
  for (size_t i = 0; i < ids.size(); ++i) {
    float* row = rows.data() + i * width;
    ConvertToFloat(table.dtype, table.bytes.data() + ids[i] * row_bytes, width, row);
    KVC_CHECK(std::all_of(row, row + width, [](float value) { return std::isfinite(value); }),
              kNumeric, "{}: expected finite numbers, got NaN or an infinity in row {}", name,
              ids[i]);
  }
  checkpoint.tensors().Release(name);
  return TakeTensor(std::move(rows), {static_cast<int64_t>(ids.size()), width});
}

}  // namespace kvc::model
