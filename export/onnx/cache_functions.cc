#include "export/onnx/cache_functions.h"

#include <algorithm>
#include <utility>

#include "export/onnx/function_body.h"
#include "export/onnx/mask_nodes.h"

namespace kvc::onnx_export {
namespace {

Attribute IntAttribute(std::string name, int64_t value) { return {std::move(name), value, ""}; }
Attribute Reference(std::string name, std::string function_attribute) {
  return {std::move(name), int64_t{0}, std::move(function_attribute)};
}
Attribute ScaleReference() { return {"scale", 0.0F, "scale"}; }

// "window" only in models that have some, so that the others' files keep their bytes.
std::vector<std::string> FunctionAttributes(const ModelConfig& config) {
  std::vector<std::string> names = {"layer", "num_heads", "num_kv_heads", "key_ranks", "scale"};
  if (config.has_windows()) names.emplace_back("window");
  return names;
}

// Makes a function with new and past rows in `dtype` around a float Attention. Rows are rounded
// first, so that a row is the same number whether it comes from this call or from the past.
Function MakeAttentionFunction(const ModelConfig& config, DType dtype) {
  Function function{kAttentionFunction,
                    {"query", "key", "value", "past_key", "past_value", "mask"},
                    {"output", "present_key", "present_value"},
                    FunctionAttributes(config),
                    {}};
  FunctionBody body;
  const bool cast = dtype != DType::kF32;
  if (cast) {
    for (const char* name : {"key", "value"}) {
      body.AddCast(name, dtype, std::string(name) + "_rounded");
      body.AddCast(std::string(name) + "_rounded", DType::kF32, std::string(name) + "_float");
      body.AddCast(std::string("past_") + name, DType::kF32,
                   std::string("past_") + name + "_float");
    }
  }
  const std::string suffix = cast ? "_float" : "";
  body.AddNode({"Attention",
                "",
                "output",
                {"query", "key" + suffix, "value" + suffix, "mask", "past_key" + suffix,
                 "past_value" + suffix},
                {"output", "present_key" + suffix, "present_value" + suffix},
                {Reference("q_num_heads", "num_heads"), Reference("kv_num_heads", "num_kv_heads"),
                 ScaleReference()}});
  if (cast) {
    body.AddCast("present_key_float", dtype, "present_key");
    body.AddCast("present_value_float", dtype, "present_value");
  }
  function.nodes = body.Take().nodes;
  return function;
}

// Adds present_X = concat(past_X, new rows by heads), and `present_X_float` if a cast is needed.
// Returns the name of the float version.
std::string AddPresent(FunctionBody& body,
                       const std::string& input,
                       const std::string& what,
                       int64_t count,
                       DType dtype) {
  const std::string rows = input + "_rows";
  body.AddSplitHeads(input, count, rows);
  if (dtype == DType::kF32) {
    body.Add("Concat", {"past_" + what, rows}, "present_" + what, {IntAttribute("axis", 2)});
    return "present_" + what;
  }
  body.AddCast(rows, dtype, rows + "_rounded");
  body.Add("Concat", {"past_" + what, rows + "_rounded"}, "present_" + what,
           {IntAttribute("axis", 2)});
  body.AddCast("present_" + what, DType::kF32, "present_" + what + "_float");
  return "present_" + what + "_float";
}

// Adds the keys [B, T, G*D] of all latents, before the rotation. Returns their name.
std::string AddRebuild(FunctionBody& body, const ModelConfig& config, const std::string& latents) {
  const int64_t groups = config.keys.num_groups;
  const int64_t rows = config.num_kv_heads / groups * config.head_width;
  body.AddReshape("rebuild", {groups, rows, -1}, "rebuild_groups");   // [n, G/n*D, R]
  body.AddTranspose("rebuild_groups", {0, 2, 1}, "rebuild_columns");  // [n, R, G/n*D]
  body.Add("MatMul", {latents, "rebuild_columns"}, "rebuilt");        // [B, n, T, G/n*D]
  body.AddTranspose("rebuilt", {0, 2, 1, 3}, "rebuilt_rows");         // [B, T, n, G/n*D]
  body.AddReshape("rebuilt_rows", {0, 0, -1}, "keys_plain");          // [B, T, G*D]
  std::string keys = "keys_plain";
  if (config.qkv_bias) {
    body.Add("Add", {keys, "rebuild_bias"}, "keys_biased");
    keys = "keys_biased";
  }
  if (config.qk_norm != QkNorm::kNone) {
    body.AddReshape(keys, {0, 0, config.num_kv_heads, config.head_width}, "keys_by_head");
    body.Add("RMSNormalization", {"keys_by_head", "key_norm"}, "keys_normed",
             {IntAttribute("axis", -1), {"epsilon", static_cast<float>(config.norm_epsilon), ""}});
    body.AddReshape("keys_normed", {0, 0, -1}, "keys_flat");
    keys = "keys_flat";
  }
  return keys;
}

// Adds the rotation of all rebuilt keys. Returns their name.
std::string AddKeyRotation(FunctionBody& body, const ModelConfig& config, const std::string& keys) {
  std::vector<Attribute> attributes = {Reference("num_heads", "num_kv_heads")};
  if (config.rotary_width() < config.head_width) {
    attributes.push_back(IntAttribute("rotary_embedding_dim", config.rotary_width()));
  }
  body.Add("RotaryEmbedding", {keys, "cos", "sin", "key_positions"}, "keys_rotated",
           std::move(attributes));
  return "keys_rotated";
}

Function MakeLatentFunction(const ModelConfig& config, DType dtype, bool rotated) {
  Function function{rotated ? kLatentFunction : kPlainLatentFunction,
                    {"query", "latent", "value", "past_key", "past_value", "mask", "key_positions",
                     "rebuild", "cos", "sin", "rebuild_bias", "key_norm"},
                    {"output", "present_key", "present_value"},
                    FunctionAttributes(config),
                    {}};
  FunctionBody body;
  const std::string latents = AddPresent(body, "latent", "key", config.keys.num_groups, dtype);
  const std::string values = AddPresent(body, "value", "value", config.num_kv_heads, dtype);
  std::string rebuilt = AddRebuild(body, config, latents);
  if (rotated) rebuilt = AddKeyRotation(body, config, rebuilt);
  body.AddSplitHeads(rebuilt, config.num_kv_heads, "keys");  // [B, G, T, D]
  body.AddSplitHeads("query", config.num_heads, "queries");  // [B, H, S, D]
  body.Add("Attention", {"queries", "keys", values, "mask"}, "output_heads", {ScaleReference()});
  body.AddTranspose("output_heads", {0, 2, 1, 3}, "output_rows");  // [B, S, H, D]
  body.AddReshape("output_rows", {0, 0, -1}, "output");
  function.nodes = body.Take().nodes;
  return function;
}

}  // namespace

int64_t PaddedKeyWidth(const ModelConfig& config, int64_t layer) {
  int64_t width = 0;
  for (int64_t group = 0; group < config.num_key_groups(); ++group) {
    width = std::max(width, config.key_width(layer, group));
  }
  return width;
}

Function MakeCacheFunction(const ModelConfig& config, DType dtype) {
  return config.keys.layout == KeyLayout::kLatent ? MakeLatentFunction(config, dtype, true)
                                                  : MakeAttentionFunction(config, dtype);
}

Function MakePlainLatentFunction(const ModelConfig& config, DType dtype) {
  return MakeLatentFunction(config, dtype, false);
}

Node MakeCacheNode(const ModelConfig& config, int64_t layer, const CacheInputs& inputs) {
  const std::string number = std::to_string(layer);
  const std::string prefix = "layers." + number + ".";
  const bool latent = config.keys.layout == KeyLayout::kLatent;
  const int64_t window = config.window(layer).value_or(0);
  Node node;
  const bool rotated = config.rotated(layer);
  const char* latent_function = rotated ? kLatentFunction : kPlainLatentFunction;
  node.op = latent ? latent_function : kAttentionFunction;
  node.domain = kFunctionDomain;
  node.name = prefix + "attention";
  node.inputs = {inputs.query,
                 inputs.key,
                 inputs.value,
                 "past_key_values." + number + ".key",
                 "past_key_values." + number + ".value",
                 window > 0 ? WindowMaskName(window) : "mask"};
  if (latent) {
    node.inputs.emplace_back(rotated ? "key_positions" : "");
    node.inputs.push_back(prefix + "k_rebuild.weight");
    for (const char* table : {"rope.cos", "rope.sin"}) {
      node.inputs.emplace_back(rotated ? table : "");
    }
    if (config.qkv_bias || config.qk_norm != QkNorm::kNone) {
      node.inputs.push_back(config.qkv_bias ? prefix + "k_rebuild.bias" : "");
    }
    if (config.qk_norm != QkNorm::kNone) {
      node.inputs.push_back(prefix + "k_norm.weight");
    }
  }
  node.outputs = {node.name, "present." + number + ".key", "present." + number + ".value"};
  std::vector<int64_t> ranks;
  for (int64_t group = 0; group < config.num_key_groups(); ++group) {
    ranks.push_back(config.key_width(layer, group));
  }
  node.attributes = {IntAttribute("layer", layer),
                     IntAttribute("num_heads", config.num_heads),
                     IntAttribute("num_kv_heads", config.num_kv_heads),
                     {"key_ranks", std::move(ranks), ""},
                     {"scale", static_cast<float>(config.logit_scale()), ""}};
  if (config.has_windows()) node.attributes.push_back(IntAttribute("window", window));
  return node;
}

}  // namespace kvc::onnx_export
