#include "export/onnx/key_functions.h"

#include <utility>

#include "export/onnx/cache_functions.h"
#include "export/onnx/function_body.h"

namespace kvc::onnx_export {

Function MakeProjectionFunction(const ModelConfig& config) {
  const int64_t groups = config.num_kv_heads;
  const int64_t width = config.head_width;
  FunctionBody body;
  body.AddReshape("input", {0, 0, groups, -1, width}, "input_split");  // [B, S, G, m, D]
  body.AddTranspose("input_split", {0, 2, 3, 1, 4}, "input_heads");    // [B, G, m, S, D]
  body.AddReshape("weight", {groups, 1, -1, width}, "weight_heads");   // [G, 1, R, D]
  body.AddTranspose("weight_heads", {0, 1, 3, 2}, "weight_columns");   // [G, 1, D, R]
  body.Add("MatMul", {"input_heads", "weight_columns"}, "projected");  // [B, G, m, S, R]
  body.AddTranspose("projected", {0, 3, 1, 2, 4}, "projected_rows");   // [B, S, G, m, R]
  body.AddReshape("projected_rows", {0, 0, -1}, "output");
  return {kProjectionFunction,
          {"input", "weight"},
          {"output"},
          {"num_heads", "num_kv_heads"},
          body.Take().nodes};
}

Node MakeProjectionNode(const ModelConfig& config,
                        const std::string& name,
                        const std::string& input,
                        const std::string& weight,
                        int64_t heads) {
  return {kProjectionFunction,
          kFunctionDomain,
          name,
          {input, weight},
          {name},
          {{"num_heads", heads, ""}, {"num_kv_heads", config.num_kv_heads, ""}}};
}

Function MakePairFunction() {
  FunctionBody body;
  for (const std::string table : {"cos", "sin"}) {
    // Rows first: they are few.
    body.Add("Gather", {table, "position_ids"}, table + "_rows", {{"axis", int64_t{0}, ""}});
    body.Add("Gather", {table + "_rows", "pairs"}, table + "_pairs", {{"axis", int64_t{2}, ""}});
  }
  // The row is treated as one head: its pairs are those of all heads.
  body.Add("RotaryEmbedding", {"input", "cos_pairs", "sin_pairs"}, "output",
           {{"interleaved", int64_t{1}, ""}, {"num_heads", int64_t{1}, ""}});
  return {kPairFunction,
          {"input", "cos", "sin", "position_ids", "pairs"},
          {"output"},
          {},
          body.Take().nodes};
}

Node MakePairNode(const std::string& name,
                  const std::string& input,
                  const std::string& rows,
                  const std::string& pairs) {
  return {kPairFunction, kFunctionDomain,
          name,          {input, "rope.cos", "rope.sin", rows, pairs},
          {name},        {}};
}

int64_t ShortContext(const ModelConfig& config) {
  const bool changes = config.has_rope && config.rope.scaling == RopeScaling::kLongRope &&
                       config.rope.original_context < config.context_length;
  return changes ? config.rope.original_context : 0;
}

Function MakeRowFunction() {
  FunctionBody body;
  body.Add("ReduceMax", {"position_ids"}, "last", {{"keepdims", int64_t{0}, ""}});
  body.Add("GreaterOrEqual", {"last", "short_context"}, "is_long");
  body.AddCast("is_long", DType::kI64, "long");
  body.Add("Mul", {"long", "short_context"}, "first_row");
  body.Add("Add", {"position_ids", "first_row"}, "rows");
  return {kRowFunction, {"position_ids", "short_context"}, {"rows"}, {}, body.Take().nodes};
}

std::vector<int64_t> StoredPairs(const ModelConfig& config, int64_t layer, int64_t heads) {
  const auto& of_layer = config.keys.pairs.at(static_cast<size_t>(layer));
  const int64_t stored = PaddedKeyWidth(config, layer) / 2;
  std::vector<int64_t> pairs;
  for (int64_t head = 0; head < heads; ++head) {
    const std::vector<int64_t>& kept = of_layer[head * config.num_kv_heads / heads];
    pairs.insert(pairs.end(), kept.begin(), kept.end());
    pairs.resize(static_cast<size_t>((head + 1) * stored), 0);
  }
  return pairs;
}

}  // namespace kvc::onnx_export
