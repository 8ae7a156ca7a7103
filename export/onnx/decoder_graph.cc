#include "export/onnx/decoder_graph.h"

#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "export/onnx/cache_functions.h"
#include "export/onnx/graph_builder.h"
#include "export/onnx/key_functions.h"
#include "export/onnx/mask_nodes.h"
#include "export/onnx/stored_weight.h"
#include "export/onnx/value_shapes.h"

namespace kvc::onnx_export {
namespace {

// Roles of a linear map or a norm: weight, and bias where the family may have one.
struct WeightAndBias {
  Role weight;
  Role bias;
  bool may_have_bias = true;
};

class DecoderBuilder {
 public:
  DecoderBuilder(const Checkpoint& checkpoint, GraphTypes types)
      : checkpoint_(checkpoint), config_(checkpoint.config()), types_(types) {}

  Graph Build() {
    DeclareInterface();
    AddMasks(config_, graph_);
    DeclareConstants();
    std::string hidden = AddEmbedding();  // [B, S, E]
    if (config_.has_rope) AddRopeTables();
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      hidden = AddLayer(layer, hidden);
    }
    AddHead(hidden);
    Graph graph = graph_.Take();
    if (AnyLayer(true)) graph.functions.push_back(MakeCacheFunction(config_, types_.cache));
    if (latent() && AnyLayer(false)) {
      graph.functions.push_back(MakePlainLatentFunction(config_, types_.cache));
    }
    if (reduced()) graph.functions.push_back(MakeProjectionFunction(config_));
    if (paired()) graph.functions.push_back(MakePairFunction());
    if (ShortContext(config_) > 0) graph.functions.push_back(MakeRowFunction());
    graph.values = InferValues(graph);
    return graph;
  }

 private:
  [[nodiscard]] bool latent() const { return config_.keys.layout == KeyLayout::kLatent; }
  [[nodiscard]] bool reduced() const { return config_.keys.layout == KeyLayout::kPostRope; }
  [[nodiscard]] bool paired() const { return config_.keys.layout == KeyLayout::kRopePairs; }

  // True if a layer calls the cache function for rotated keys, or the one for others; only latents
  // have the latter.
  [[nodiscard]] bool AnyLayer(bool rotated) const;

  void DeclareInterface();
  void DeclareConstants();
  void AddRopeTables();
  std::string AddEmbedding();
  std::string AddTable(const std::string& name, const std::string& ids, Role role);
  std::string AddLayer(int64_t layer, const std::string& input);
  std::string AddAttention(int64_t layer, const std::string& input);
  std::string AddMlp(int64_t layer, const std::string& input);
  void AddHead(const std::string& input);

  std::string AddNorm(const std::string& name,
                      const std::string& input,
                      WeightAndBias roles,
                      int64_t layer);
  std::string AddHeadNorm(const std::string& name,
                          const std::string& input,
                          Role role,
                          int64_t layer,
                          const std::string& split);
  std::string AddLinear(const std::string& name,
                        const std::string& input,
                        WeightAndBias roles,
                        int64_t layer);
  std::string AddProduct(const std::string& name,
                         const std::string& weight,
                         const std::string& input,
                         const std::string& output);
  std::string AddRope(const std::string& name, const std::string& input, int64_t heads);
  std::string AddPairRope(const std::string& name,
                          const std::string& input,
                          int64_t layer,
                          int64_t heads);
  void ReduceHeads(int64_t layer, CacheInputs& cache);
  std::string AddActivation(const std::string& prefix, const std::string& input);
  std::string AddWeight(const std::string& name, Role role, int64_t layer);

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  GraphTypes types_;
  GraphBuilder graph_;
  std::string rows_ = "position_ids";  // of the rotation tables
};

std::string LayerPrefix(int64_t layer) { return "layers." + std::to_string(layer) + "."; }

bool DecoderBuilder::AnyLayer(bool rotated) const {
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    if ((!latent() || config_.rotated(layer)) == rotated) return true;
  }
  return false;
}

void DecoderBuilder::DeclareInterface() {
  graph_.AddInput({"input_ids", DType::kI64, {"batch", "sequence"}});
  graph_.AddInput({"attention_mask", DType::kI64, {"batch", "total_sequence"}});
  graph_.AddInput({"position_ids", DType::kI64, {"batch", "sequence"}});
  graph_.AddOutput({"logits", DType::kF32, {"batch", "sequence", config_.vocab_size}});
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const std::string past = "past_key_values." + std::to_string(layer);
    const std::string present = "present." + std::to_string(layer);
    const int64_t width = PaddedKeyWidth(config_, layer);
    const int64_t groups = config_.num_key_groups();
    const int64_t heads = config_.num_kv_heads;
    const int64_t value_width = config_.head_width;
    graph_.AddInput({past + ".key", types_.cache, {"batch", groups, "past_sequence", width}});
    graph_.AddInput(
        {past + ".value", types_.cache, {"batch", heads, "past_sequence", value_width}});
    graph_.AddOutput({present + ".key", types_.cache, {"batch", groups, "total_sequence", width}});
    graph_.AddOutput(
        {present + ".value", types_.cache, {"batch", heads, "total_sequence", value_width}});
  }
}

void DecoderBuilder::DeclareConstants() {
  if (ShortContext(config_) > 0) {
    graph_.AddConstant({"const.short_context", {}, {ShortContext(config_)}});
  }
  if (config_.qk_norm == QkNorm::kHead) {
    graph_.AddConstant({"const.split_q", {4}, {0, 0, config_.num_heads, config_.head_width}});
    if (!latent()) {
      graph_.AddConstant({"const.split_k", {4}, {0, 0, config_.num_kv_heads, config_.head_width}});
    }
    graph_.AddConstant({"const.flat", {3}, {0, 0, -1}});
  }
}

// Adds the rows of a [V, E] or [C, E] table, as float.
std::string DecoderBuilder::AddTable(const std::string& name, const std::string& ids, Role role) {
  const std::string weight = AddWeight(name + ".weight", role, -1);
  std::string rows =
      graph_.Add("Gather", {weight, ids}, name + ".gather", {{"axis", int64_t{0}, ""}});
  if (types_.weights != DType::kF32) rows = graph_.AddCast(rows, DType::kF32, name + ".float");
  return rows;
}

std::string DecoderBuilder::AddEmbedding() {
  const std::string tokens = AddTable("embedding", "input_ids", Role::kEmbedding);
  if (config_.has_rope) return tokens;
  const std::string positions =
      AddTable("position_embedding", "position_ids", Role::kPositionEmbedding);
  return graph_.Add("Add", {tokens, positions}, "embedding.sum");
}

void DecoderBuilder::AddRopeTables() {
  for (const auto& [name, kind] :
       {std::pair{"rope.cos", WeightKind::kRopeCos}, std::pair{"rope.sin", WeightKind::kRopeSin}}) {
    Weight table;
    table.name = name;
    table.kind = kind;
    table.dims = {ShortContext(config_) + config_.context_length, config_.rotary_width() / 2};
    graph_.AddWeight(std::move(table));
  }
  if (ShortContext(config_) == 0) return;
  rows_ = "rope.rows";
  graph_.AddNode(
      {kRowFunction, kFunctionDomain, rows_, {"position_ids", "const.short_context"}, {rows_}, {}});
}

std::string DecoderBuilder::AddWeight(const std::string& name, Role role, int64_t layer) {
  graph_.AddWeight(DescribeWeight(checkpoint_, name, role, layer, types_.weights));
  return name;
}

std::string DecoderBuilder::AddNorm(const std::string& name,
                                    const std::string& input,
                                    WeightAndBias roles,
                                    int64_t layer) {
  std::vector<std::string> inputs = {input, AddWeight(name + ".weight", roles.weight, layer)};
  const bool layer_norm = config_.norm == NormKind::kLayer;
  if (layer_norm) inputs.push_back(AddWeight(name + ".bias", roles.bias, layer));
  return graph_.Add(
      layer_norm ? "LayerNormalization" : "RMSNormalization", std::move(inputs), name,
      {{"axis", int64_t{-1}, ""}, {"epsilon", static_cast<float>(config_.norm_epsilon), ""}});
}

// Adds the RMS norm of each head: [B, S, heads*D] split, normalised, joined; or that of all heads.
std::string DecoderBuilder::AddHeadNorm(const std::string& name,
                                        const std::string& input,
                                        Role role,
                                        int64_t layer,
                                        const std::string& split) {
  const std::string weight = AddWeight(name + ".weight", role, layer);
  const std::vector<Attribute> attributes = {
      {"axis", int64_t{-1}, ""}, {"epsilon", static_cast<float>(config_.norm_epsilon), ""}};
  if (config_.qk_norm == QkNorm::kWhole) {
    return graph_.Add("RMSNormalization", {input, weight}, name, attributes);
  }
  graph_.Add("Reshape", {input, split}, name + ".split");
  graph_.Add("RMSNormalization", {name + ".split", weight}, name, attributes);
  return graph_.Add("Reshape", {name, "const.flat"}, name + ".flat");
}

// Adds x W^T of a stored [out, in] matrix.
std::string DecoderBuilder::AddProduct(const std::string& name,
                                       const std::string& weight,
                                       const std::string& input,
                                       const std::string& output) {
  std::string matrix = weight;
  if (types_.weights != DType::kF32) matrix = graph_.AddCast(matrix, DType::kF32, name + ".float");
  graph_.Add("Transpose", {matrix}, name + ".transpose",
             {{"perm", std::vector<int64_t>{1, 0}, ""}});
  return graph_.AddNamed("MatMul", name + ".matmul", {input, name + ".transpose"}, output);
}

std::string DecoderBuilder::AddLinear(const std::string& name,
                                      const std::string& input,
                                      WeightAndBias roles,
                                      int64_t layer) {
  const std::string weight = AddWeight(name + ".weight", roles.weight, layer);
  const std::string product = AddProduct(name, weight, input, name + ".matmul");
  if (!roles.may_have_bias || !checkpoint_.Has(roles.bias, layer)) return product;
  return graph_.Add("Add", {product, AddWeight(name + ".bias", roles.bias, layer)}, name + ".add");
}

std::string DecoderBuilder::AddRope(const std::string& name,
                                    const std::string& input,
                                    int64_t heads) {
  std::vector<Attribute> attributes = {{"num_heads", heads, ""}};
  if (config_.rotary_width() < config_.head_width) {
    attributes.push_back({"rotary_embedding_dim", config_.rotary_width(), ""});
  }
  return graph_.Add("RotaryEmbedding", {input, "rope.cos", "rope.sin", rows_}, name,
                    std::move(attributes));
}

// Adds the rotation of the layer's kept pairs.
std::string DecoderBuilder::AddPairRope(const std::string& name,
                                        const std::string& input,
                                        int64_t layer,
                                        int64_t heads) {
  const std::vector<int64_t> pairs = StoredPairs(config_, layer, heads);
  graph_.AddConstant({name + ".pairs", {static_cast<int64_t>(pairs.size())}, pairs});
  graph_.AddNode(MakePairNode(name, input, rows_, name + ".pairs"));
  return name;
}

// Multiplies queries and keys after the rotation by the factors of their kv head.
void DecoderBuilder::ReduceHeads(int64_t layer, CacheInputs& cache) {
  const std::string q = LayerPrefix(layer) + "q_reduce";
  const std::string k = LayerPrefix(layer) + "k_reduce";
  AddWeight(q + ".weight", Role::kQReduce, layer);
  graph_.AddNode(MakeProjectionNode(config_, q, cache.query, q + ".weight", config_.num_heads));
  cache.query = q;
  AddWeight(k + ".weight", Role::kKReduce, layer);
  graph_.AddNode(MakeProjectionNode(config_, k, cache.key, k + ".weight", config_.num_kv_heads));
  AddWeight(k + ".bias", Role::kKReduceBias, layer);
  cache.key = graph_.Add("Add", {k, k + ".bias"}, k + ".add");
}

std::string DecoderBuilder::AddActivation(const std::string& prefix, const std::string& input) {
  if (config_.activation == Activation::kSilu) {
    graph_.Add("Sigmoid", {input}, prefix + "sigmoid");
    return graph_.Add("Mul", {input, prefix + "sigmoid"}, prefix + "activation");
  }
  const bool tanh = config_.activation == Activation::kGeluTanh;
  return graph_.Add("Gelu", {input}, prefix + "activation",
                    {{"approximate", std::string(tanh ? "tanh" : "none"), ""}});
}

std::string DecoderBuilder::AddAttention(int64_t layer, const std::string& input) {
  const std::string prefix = LayerPrefix(layer);
  CacheInputs cache;
  cache.query = AddLinear(prefix + "q", input, {Role::kQ, Role::kQBias}, layer);
  // The bias of a latent's keys is added after the rebuild, inside the cache function.
  cache.key = AddLinear(prefix + "k", input, {Role::kK, Role::kKBias, !latent()}, layer);
  cache.value = AddLinear(prefix + "v", input, {Role::kV, Role::kVBias}, layer);
  if (config_.qk_norm != QkNorm::kNone) {
    cache.query = AddHeadNorm(prefix + "q_norm", cache.query, Role::kQNorm, layer, "const.split_q");
    if (!latent()) {
      cache.key = AddHeadNorm(prefix + "k_norm", cache.key, Role::kKNorm, layer, "const.split_k");
    }
  }
  const bool rotated = config_.rotated(layer);
  if (paired() && rotated) {
    cache.query = AddPairRope(prefix + "q.rope", cache.query, layer, config_.num_heads);
    cache.key = AddPairRope(prefix + "k.rope", cache.key, layer, config_.num_kv_heads);
  } else if (rotated) {
    cache.query = AddRope(prefix + "q.rope", cache.query, config_.num_heads);
    if (!latent()) cache.key = AddRope(prefix + "k.rope", cache.key, config_.num_kv_heads);
  }
  if (reduced()) ReduceHeads(layer, cache);
  if (latent()) {
    if (config_.qk_norm != QkNorm::kNone) AddWeight(prefix + "k_norm.weight", Role::kKNorm, layer);
    AddWeight(prefix + "k_rebuild.weight", Role::kKRebuild, layer);
    if (config_.qkv_bias) AddWeight(prefix + "k_rebuild.bias", Role::kKBias, layer);
  }
  graph_.AddNode(MakeCacheNode(config_, layer, cache));
  return AddLinear(prefix + "o", prefix + "attention", {Role::kO, Role::kOBias}, layer);
}

std::string DecoderBuilder::AddMlp(int64_t layer, const std::string& input) {
  const std::string prefix = LayerPrefix(layer);
  std::string product;
  if (checkpoint_.Has(Role::kGate, layer)) {
    const std::string gate =
        AddLinear(prefix + "gate", input, {Role::kGate, Role::kGateBias}, layer);
    const std::string up = AddLinear(prefix + "up", input, {Role::kUp, Role::kUpBias}, layer);
    product = graph_.Add("Mul", {AddActivation(prefix, gate), up}, prefix + "product");
  } else {
    const std::string up = AddLinear(prefix + "up", input, {Role::kUp, Role::kUpBias}, layer);
    product = AddActivation(prefix, up);
  }
  return AddLinear(prefix + "down", product, {Role::kDown, Role::kDownBias}, layer);
}

std::string DecoderBuilder::AddLayer(int64_t layer, const std::string& input) {
  const std::string prefix = LayerPrefix(layer);
  const bool before = config_.norm_place == NormPlace::kBefore;
  const auto attn_norm = [&](const std::string& x) {
    return AddNorm(prefix + "attn_norm", x, {Role::kAttnNorm, Role::kAttnNormBias}, layer);
  };
  const auto mlp_norm = [&](const std::string& x) {
    return AddNorm(prefix + "mlp_norm", x, {Role::kMlpNorm, Role::kMlpNormBias}, layer);
  };
  std::string attention = AddAttention(layer, before ? attn_norm(input) : input);
  if (!before) attention = attn_norm(attention);
  const std::string middle = graph_.Add("Add", {input, attention}, prefix + "attn_residual");
  std::string mlp = AddMlp(layer, before ? mlp_norm(middle) : middle);
  if (!before) mlp = mlp_norm(mlp);
  return graph_.Add("Add", {middle, mlp}, prefix + "mlp_residual");
}

void DecoderBuilder::AddHead(const std::string& input) {
  const std::string norm =
      AddNorm("final_norm", input, {Role::kFinalNorm, Role::kFinalNormBias}, -1);
  const std::string weight = config_.tied_embeddings
                                 ? std::string("embedding.weight")
                                 : AddWeight("lm_head.weight", Role::kLmHead, -1);
  AddProduct("lm_head", weight, norm, "logits");
}

}  // namespace

Graph BuildDecoderGraph(const Checkpoint& checkpoint, GraphTypes types) {
  return DecoderBuilder(checkpoint, types).Build();
}

}  // namespace kvc::onnx_export
