#include "model/parameters.h"

#include <cmath>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/safetensors.h"

namespace kvc::model {
namespace {

using torch::Tensor;

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

std::vector<Parameter> Matrices(const ModelConfig& c) {
  const double residual = 1.0 / std::sqrt(2.0 * static_cast<double>(c.num_layers));
  const int64_t queries = c.num_heads * c.head_width;
  const int64_t keys = c.num_kv_heads * c.head_width;
  std::vector<Parameter> all;
  const std::vector<int64_t> table = {c.vocab_size, c.model_width};
  all.push_back(
      Outer("model.embed_tokens.weight", &OuterWeights::embedding, table, kEmbeddingStd, 0));
  using W = LayerWeights;
  for (int64_t l = 0; l < c.num_layers; ++l) {
    all.push_back(LayerMatrix(l, "self_attn.q_proj", &W::q, queries, c.model_width));
    all.push_back(LayerMatrix(l, "self_attn.k_proj", &W::k, keys, c.model_width));
    all.push_back(LayerMatrix(l, "self_attn.v_proj", &W::v, keys, c.model_width));
    all.push_back(LayerMatrix(l, "self_attn.o_proj", &W::o, c.model_width, queries, residual));
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
    if (c.qk_norm) {
      all.push_back(LayerVector(l, "self_attn.q_norm.weight", &W::q_norm, c.head_width, 1));
      all.push_back(LayerVector(l, "self_attn.k_norm.weight", &W::k_norm, c.head_width, 1));
    }
    if (c.qkv_bias) {
      const int64_t keys = c.num_kv_heads * c.head_width;
      const int64_t queries = c.num_heads * c.head_width;
      all.push_back(LayerVector(l, "self_attn.q_proj.bias", &W::q_bias, queries, 0));
      all.push_back(LayerVector(l, "self_attn.k_proj.bias", &W::k_bias, keys, 0));
      all.push_back(LayerVector(l, "self_attn.v_proj.bias", &W::v_bias, keys, 0));
    }
  }
  all.push_back(Outer("model.norm.weight", &OuterWeights::final_norm, {c.model_width}, 0, 1));
  return all;
}

}  // namespace

ParameterList::ParameterList(const ModelConfig& config) {
  KVC_CHECK(config.has_rope && config.family != Family::kGpt2,
            kUnsupported,
            "config.json: model_type: expected llama, mistral, qwen2 or qwen3 to train, got ",
            FamilyName(config.family));
  KVC_CHECK(!config.thin(),
            kUnsupported,
            "config.json: kvc.layout: expected full keys to train, got ",
            KeyLayoutName(config.keys.layout));
  KVC_CHECK(!config.out_bias && !config.mlp_bias,
            kUnsupported,
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

torch::Tensor ParameterList::Read(const std::filesystem::path& directory) const {
  const SafetensorsReader reader = SafetensorsReader::OpenDirectory(directory);
  Tensor values = torch::empty({count_}, torch::kFloat32);
  for (const Parameter& p : all_) {
    const TensorRef& ref = reader.Get(p.name);
    KVC_CHECK(ref.shape == p.shape,
              kBadShape,
              p.name,
              ": expected ",
              p.count,
              " elements in the shape of config.json, got ",
              ref.num_elements(),
              "; start from a model of the same sizes");
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
