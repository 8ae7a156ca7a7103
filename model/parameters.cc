#include "model/parameters.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "model/replica.h"

namespace kvc::model {
namespace {

using torch::Tensor;

// Constants of the head that StartPreviousTokenHead makes: what it reads, how strongly it turns,
// and how many rotation pairs, fastest first, take part. The logit at distance n is kHeadStrength^2
// / sqrt(D) * sum over pairs of cos((n - 1) frequency).
constexpr double kConstantColumn = 0.5;
constexpr double kHeadStrength = 7.5;
constexpr int64_t kHeadPairs = 10;

// Rows of an embedding have about the norm of what the first layers add to them.
constexpr double kEmbeddingStd = 0.1;

int64_t CountOf(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    count *= size;
  }
  return count;
}

Parameter LayerMatrix(int64_t layer,
                      const std::string& name,
                      Tensor LayerWeights::*member,
                      int64_t out,
                      int64_t in,
                      double gain = 1.0) {
  Parameter p;
  p.name = "model.layers." + std::to_string(layer) + "." + name + ".weight";
  p.shape = {out, in};
  p.layer = layer;
  p.layer_member = member;
  p.init_std = gain / std::sqrt(static_cast<double>(in));
  return p;
}

Parameter LayerVector(int64_t layer,
                      const std::string& name,
                      Tensor LayerWeights::*member,
                      int64_t size,
                      double value) {
  Parameter p;
  p.name = "model.layers." + std::to_string(layer) + "." + name;
  p.shape = {size};
  p.layer = layer;
  p.layer_member = member;
  p.init_value = value;
  return p;
}

Parameter Outer(const std::string& name,
                Tensor OuterWeights::*member,
                std::vector<int64_t> shape,
                double std,
                double value) {
  Parameter p;
  p.name = name;
  p.shape = std::move(shape);
  p.outer_member = member;
  p.init_std = std;
  p.init_value = value;
  return p;
}

// Returns the width of all keys of a layer: thin ones are as wide as their ranks.
int64_t KeyWidth(const ModelConfig& c, int64_t layer) {
  int64_t width = 0;
  for (int64_t head = 0; head < c.num_kv_heads; ++head) width += c.key_width(layer, head);
  return width;
}

std::vector<Parameter> Matrices(const ModelConfig& c) {
  const double residual = 1.0 / std::sqrt(2.0 * static_cast<double>(c.num_layers));
  const int64_t attention = c.num_heads * c.head_width;
  const int64_t values = c.num_kv_heads * c.head_width;
  std::vector<Parameter> all;
  const std::vector<int64_t> table = {c.vocab_size, c.model_width};
  all.push_back(
      Outer("model.embed_tokens.weight", &OuterWeights::embedding, table, kEmbeddingStd, 0));
  using W = LayerWeights;
  for (int64_t l = 0; l < c.num_layers; ++l) {
    const int64_t keys = KeyWidth(c, l);
    // Logits are scaled for keys as wide as values: thin ones begin with larger queries.
    const double gain = std::sqrt(static_cast<double>(values) / static_cast<double>(keys));
    const int64_t queries = keys * c.group_size();
    all.push_back(LayerMatrix(l, "self_attn.q_proj", &W::q, queries, c.model_width, gain));
    all.push_back(LayerMatrix(l, "self_attn.k_proj", &W::k, keys, c.model_width));
    all.push_back(LayerMatrix(l, "self_attn.v_proj", &W::v, values, c.model_width));
    all.push_back(LayerMatrix(l, "self_attn.o_proj", &W::o, c.model_width, attention, residual));
    all.push_back(LayerMatrix(l, "mlp.gate_proj", &W::gate, c.mlp_width, c.model_width));
    all.push_back(LayerMatrix(l, "mlp.up_proj", &W::up, c.mlp_width, c.model_width));
    all.push_back(LayerMatrix(l, "mlp.down_proj", &W::down, c.model_width, c.mlp_width, residual));
  }
  if (!c.tied_embeddings) {
    all.push_back(Outer("lm_head.weight", &OuterWeights::lm_head, table, kEmbeddingStd, 0));
  }
  return all;
}

std::vector<Parameter> Vectors(const ModelConfig& c) {
  std::vector<Parameter> all;
  using W = LayerWeights;
  for (int64_t l = 0; l < c.num_layers; ++l) {
    all.push_back(LayerVector(l, "input_layernorm.weight", &W::attn_norm, c.model_width, 1));
    all.push_back(
        LayerVector(l, "post_attention_layernorm.weight", &W::mlp_norm, c.model_width, 1));
    if (c.qk_norm != QkNorm::kNone) {
      all.push_back(LayerVector(l, "self_attn.q_norm.weight", &W::q_norm, c.head_width, 1));
      all.push_back(LayerVector(l, "self_attn.k_norm.weight", &W::k_norm, c.head_width, 1));
    }
    if (c.qkv_bias) {
      const int64_t keys = KeyWidth(c, l);
      const int64_t values = c.num_kv_heads * c.head_width;
      all.push_back(LayerVector(l, "self_attn.q_proj.bias", &W::q_bias, keys * c.group_size(), 0));
      all.push_back(LayerVector(l, "self_attn.k_proj.bias", &W::k_bias, keys, 0));
      all.push_back(LayerVector(l, "self_attn.v_proj.bias", &W::v_bias, values, 0));
    }
  }
  all.push_back(Outer("model.norm.weight", &OuterWeights::final_norm, {c.model_width}, 0, 1));
  return all;
}

}  // namespace

ParameterList::ParameterList(const ModelConfig& config) {
  const bool known = config.has_rope && config.gated && config.norm == NormKind::kRms &&
                     config.norm_place == NormPlace::kBefore && config.qk_norm != QkNorm::kWhole;
  KVC_CHECK(known, kUnsupported,
            "config.json: model_type: expected llama, mistral, qwen2, qwen3 or smollm3 to train, "
            "got {}",
            FamilyName(config.family));
  KVC_CHECK(!config.thin() || config.keys.layout == KeyLayout::kRopePairs, kUnsupported,
            "config.json: kvc.layout: expected full keys or rope-pairs to train, got {}",
            KeyLayoutName(config.keys.layout));
  KVC_CHECK(!config.out_bias && !config.mlp_bias, kUnsupported,
            "config.json: expected no attention_bias on the output and no mlp_bias to train");
  for (Parameter& p : Matrices(config)) {
    Add(std::move(p));
  }
  matrix_count_ = count_;
  for (Parameter& p : Vectors(config)) {
    Add(std::move(p));
  }
}

void ParameterList::Add(Parameter parameter) {
  parameter.offset = count_;
  parameter.count = CountOf(parameter.shape);
  count_ += parameter.count;
  all_.push_back(std::move(parameter));
}

KeyFactors ThinKeysFromScratch(const ModelConfig& config, int64_t rank) {
  const int64_t half = config.head_width / 2;
  KVC_CHECK(rank >= 2 && rank <= config.head_width && rank % 2 == 0, kUsage,
            "rank: expected an even number of dimensions of a head, 2 to {}, got {}",
            config.head_width, rank);
  std::vector<int64_t> pairs;  // of a head, evenly spread over the frequencies
  for (int64_t i = 0; i < rank / 2; ++i) pairs.push_back(i * half / (rank / 2));
  KeyFactors keys;
  keys.layout = KeyLayout::kRopePairs;
  keys.num_groups = config.num_kv_heads;
  keys.ranks.assign(config.num_layers, std::vector<int64_t>(config.num_kv_heads, rank));
  keys.pairs.assign(config.num_layers, std::vector(config.num_kv_heads, pairs));
  return keys;
}

torch::Tensor ParameterList::Initialize(Rng& rng) const {
  Tensor values = torch::empty({count_}, torch::kFloat32);
  float* data = values.data_ptr<float>();
  for (const Parameter& p : all_) {
    for (int64_t i = p.offset; i < p.offset + p.count; ++i) {
      data[i] = static_cast<float>(p.init_std > 0 ? p.init_std * rng.NextNormal() : p.init_value);
    }
  }
  return values;
}

const Parameter& ParameterList::Get(const std::string& name) const {
  const auto found = std::find_if(all_.begin(), all_.end(),
                                  [&name](const Parameter& p) { return p.name == name; });
  KVC_CHECK(found != all_.end(), kInternal, "{}: expected a trainable weight", name);
  return *found;
}

void ParameterList::StartPreviousTokenHead(const ModelConfig& config, Tensor& values) const {
  KVC_CHECK(!config.thin(), kUnsupported,
            "previous-token head: expected full keys, got {}; use --no-previous-token-head",
            KeyLayoutName(config.keys.layout));
  const auto view = [&values](const Parameter& p) {
    return values.narrow(0, p.offset, p.count).view(p.shape);
  };
  view(Get("model.embed_tokens.weight")).select(1, 0).fill_(kConstantColumn);
  const int64_t width = config.head_width;
  Tensor q = view(Get("model.layers.0.self_attn.q_proj.weight")).narrow(0, 0, width);  // [D, E]
  Tensor k = view(Get("model.layers.0.self_attn.k_proj.weight")).narrow(0, 0, width);  // [D, E]
  q.zero_();
  k.zero_();
  // Value that the norm makes of the constant column: c / sqrt(mean square of a row).
  const double others = kEmbeddingStd * kEmbeddingStd;
  const double mean_square =
      kConstantColumn * kConstantColumn / static_cast<double>(config.model_width) + others;
  const double gain = kHeadStrength * std::sqrt(mean_square) / kConstantColumn;
  const std::vector<double> frequencies = RopeInverseFrequencies(config.rope, width);  // [D/2]
  for (int64_t j = 0; j < std::min(kHeadPairs, width / 2); ++j) {
    const double angle = frequencies[static_cast<size_t>(j)];
    k.index_put_({j, 0}, gain);
    q.index_put_({j, 0}, gain * std::cos(angle));
    q.index_put_({j + width / 2, 0}, -gain * std::sin(angle));
  }
}

torch::Tensor ParameterList::Read(const std::filesystem::path& directory) const {
  const SafetensorsReader reader = SafetensorsReader::OpenDirectory(directory);
  Tensor values = torch::empty({count_}, torch::kFloat32);
  for (const Parameter& p : all_) {
    const TensorRef& ref = reader.Get(p.name);
    KVC_CHECK(ref.shape == p.shape, kBadShape,
              "{}: expected {} elements in the shape of config.json, got {}; start from a model of "
              "the same sizes",
              p.name, p.count, ref.num_elements());
    ConvertToFloat(ref.dtype, ref.bytes.data(), p.count, values.data_ptr<float>() + p.offset);
  }
  return values;
}

void ParameterList::Write(const torch::Tensor& values,
                          DType dtype,
                          const std::filesystem::path& path) const {
  std::vector<TensorSpec> specs;
  for (const Parameter& p : all_) {
    specs.push_back({p.name, dtype, p.shape});
  }
  SafetensorsWriter writer(path, specs, {{"format", "pt"}});
  const float* data = values.data_ptr<float>();
  for (const Parameter& p : all_) {
    writer.WriteFloats(p.name, std::span(data + p.offset, static_cast<size_t>(p.count)));
  }
  writer.Close();
}

Replica::Replica(const ModelConfig& config, const ParameterList& list, const torch::Tensor& values)
    : config_(config),
      layers_(static_cast<size_t>(config.num_layers)),
      gradients_(torch::zeros_like(values)) {
  for (const Parameter& p : list.all()) {
    // [out, in] or [out], on the shared buffer
    Tensor leaf = values.narrow(0, p.offset, p.count).view(p.shape).detach();
    leaf.set_requires_grad(true);
    leaf.mutable_grad() = gradients_.narrow(0, p.offset, p.count).view(p.shape);
    if (p.layer_member != nullptr) {
      layers_[static_cast<size_t>(p.layer)].*p.layer_member = leaf;
    } else {
      outer_.*p.outer_member = leaf;
    }
  }
  if (config.tied_embeddings) {
    outer_.lm_head = outer_.embedding;
  }
}

torch::Tensor Replica::Forward(const torch::Tensor& ids) const {
  Tensor hidden = Embed(config_, outer_, ids);  // [N, T, E]
  for (int64_t l = 0; l < config_.num_layers; ++l) {
    hidden = LayerForward(config_, layers_[static_cast<size_t>(l)], l, hidden);
  }
  return Logits(config_, outer_, hidden);
}

}  // namespace kvc::model
