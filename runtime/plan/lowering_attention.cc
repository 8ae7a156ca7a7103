#include <algorithm>
#include <utility>

#include "runtime/plan/lowering_context.h"

namespace kvc::runtime {
namespace {

// Widths of the rows that enter the cache node.
struct InputWidths {
  int64_t q = 0;
  int64_t k = 0;
  int64_t v = 0;
};

bool SizesFit(const AttentionStep& attention, const InputWidths& widths) {
  const int64_t heads = attention.num_heads;
  const int64_t kv_heads = attention.num_kv_heads;
  const auto groups = static_cast<int64_t>(attention.key_ranks.size());
  if (kv_heads <= 0 || heads <= 0 || heads % kv_heads != 0 || groups == 0) return false;
  if (kv_heads % groups != 0 || (!attention.latent && groups != kv_heads)) return false;
  if (widths.q % heads != 0 || widths.k % groups != 0 || widths.v % kv_heads != 0) return false;
  // In the dot product, keys are as wide as stored, or as the head when they are rebuilt.
  const int64_t key_width = attention.latent ? widths.v / kv_heads : widths.k / groups;
  if (widths.q / heads != key_width) return false;
  return std::all_of(attention.key_ranks.begin(), attention.key_ranks.end(),
                     [&](int64_t rank) { return rank > 0 && rank <= widths.k / groups; });
}

// Returns the epsilon of the key norm, which is only in the function's body.
float BodyNormEpsilon(const Node& node, const Graph& graph) {
  for (const Function& function : graph.functions) {
    if (function.domain != node.domain || function.name != node.op) continue;
    for (const Node& inner : function.nodes) {
      if (inner.op == "RMSNormalization") return inner.Float("epsilon", 1e-5F);
    }
  }
  KVC_THROW(kBadInput, "node \"{}\": expected a function body with RMSNormalization, got none",
            node.name);
}

void AddRebuild(const Node& node,
                LoweringContext& context,
                int64_t head_width,
                AttentionStep& attention) {
  const Tensor& matrix = context.Weight(node, 7);
  const int64_t rows = attention.num_kv_heads * head_width;
  RequireNode(matrix.dtype == DType::kF32 &&
                  matrix.dims == std::vector<int64_t>({rows, attention.stored_width}) &&
                  head_width % 2 == 0,
              node, "initializer {}: expected a float rebuild matrix [{}, {}]", matrix.name, rows,
              attention.stored_width);
  RebuildStep& rebuild = attention.rebuild;
  rebuild.matrix = context.IdOf(matrix);
  if (node.op == "CompressedLatentAttention") {
    const Tensor& table = context.Weight(node, 8);
    const int64_t half = table.dims.size() == 2 ? table.dims[1] : 0;  // r/2
    RequireNode(half > 0 && 2 * half <= head_width, node,
                "initializer {}: expected a table of up to {} angles, got {}", table.name,
                head_width / 2, half);
    SupportNode(context.lowered().plan.short_context == 0, node,
                "expected latents without a rotation that depends on the length");
    rebuild.cos = context.Table(node, 8, half);
    rebuild.sin = context.Table(node, 9, half);
  }
  const bool has_bias = node.inputs.size() > 10 && !node.inputs[10].empty();
  const bool has_norm = node.inputs.size() > 11 && !node.inputs[11].empty();
  if (has_bias) rebuild.bias = context.Vector(node, 10, rows);
  if (has_norm) {
    rebuild.norm_weight = context.Vector(node, 11, head_width);
    rebuild.norm_epsilon = BodyNormEpsilon(node, context.graph());
  }
}

}  // namespace

void LowerHeadProjection(const Node& node, LoweringContext& context) {
  RequireNode(node.inputs.size() == 2 && node.outputs.size() == 1, node,
              "expected two inputs and one output");
  const int64_t x = context.Flat(node, 0);
  const Tensor& weight = context.Weight(node, 1);
  const int64_t heads = node.Int("num_heads");
  const int64_t groups = node.Int("num_kv_heads");
  const bool fits = weight.dtype == DType::kF32 && weight.dims.size() == 2 && groups > 0 &&
                    heads > 0 && heads % groups == 0 && weight.dims[0] % groups == 0 &&
                    weight.dims[0] > 0 && context.WidthOf(x) % heads == 0 &&
                    context.WidthOf(x) / heads == weight.dims[1];
  RequireNode(fits, node,
              "expected a float matrix [num_kv_heads * R, D] for {} heads of a row {} wide", heads,
              context.WidthOf(x));
  const int64_t width = weight.dims[0] / groups;  // R
  const int64_t depth = weight.dims[1];           // D
  std::vector<float> columns(static_cast<size_t>(weight.elements));
  for (int64_t row = 0; row < weight.dims[0]; ++row) {
    for (int64_t d = 0; d < depth; ++d) {
      const int64_t target = (row / width * depth + d) * width + row % width;
      columns[static_cast<size_t>(target)] = weight.as<float>()[row * depth + d];
    }
  }
  LoweredStep& step = context.AddStep(node, StepKind::kProjectHeads, {x}, heads * width);
  step.step.heads = heads;
  step.step.groups = groups;
  std::vector<std::vector<float>>& constants = context.lowered().plan.constants;
  step.step.columns = {DataId::Home::kConstant, std::ssize(constants)};
  constants.push_back(std::move(columns));
}

void LowerPairRotation(const Node& node, LoweringContext& context) {
  RequireNode(node.inputs.size() == 5 && node.outputs.size() == 1, node,
              "expected five inputs and one output");
  const int64_t x = context.Flat(node, 0);
  SupportNode(context.AtPositions(node, 3), node, "expected a rotation at position_ids");
  const Tensor& pairs = context.Weight(node, 4);
  RequireNode(pairs.dtype == DType::kI64 &&
                  pairs.dims == std::vector<int64_t>({context.WidthOf(x) / 2}) &&
                  context.WidthOf(x) % 2 == 0,
              node, "expected one pair for each two of {} columns, got {}", context.WidthOf(x),
              pairs.elements);
  const Tensor& table = context.Weight(node, 1);
  const int64_t available = table.dims.size() == 2 ? table.dims[1] : 0;  // D/2
  const std::span<const int64_t> indices(pairs.as<int64_t>(), static_cast<size_t>(pairs.elements));
  const bool in_range = std::all_of(indices.begin(), indices.end(),
                                    [&](int64_t pair) { return pair >= 0 && pair < available; });
  RequireNode(in_range, node, "expected pairs below {}", available);
  const DataId cos = context.Table(node, 1, available);
  const DataId sin = context.Table(node, 2, available);
  LoweredStep& step = context.AddStep(node, StepKind::kPairRope, {x}, context.WidthOf(x));
  step.step.pairs.assign(indices.begin(), indices.end());
  step.step.cos = cos;
  step.step.sin = sin;
}

void LowerRotationRows(const Node& node, LoweringContext& context) {
  RequireNode(node.inputs.size() == 2 && node.outputs.size() == 1, node,
              "expected two inputs and one output");
  SupportNode(context.Input(node, 0).kind == Value::Kind::kPositions, node,
              "expected rows of position_ids");
  const Tensor& length = context.Weight(node, 1);
  int64_t& short_context = context.lowered().plan.short_context;
  RequireNode(length.dtype == DType::kI64 && length.elements == 1 && length.as<int64_t>()[0] > 0 &&
                  short_context == 0,
              node, "expected one length above 0, once");
  short_context = length.as<int64_t>()[0];
  Value value;
  value.kind = Value::Kind::kRotationRows;
  context.Define(node, node.outputs[0], value);
}

AttentionStep ReadAttention(const Node& node, LoweringContext& context) {
  AttentionStep attention;
  attention.latent = node.op != "CompressedAttention";
  RequireNode(node.inputs.size() >= (attention.latent ? 10U : 6U) && node.outputs.size() == 3, node,
              "expected the inputs and outputs of docs/formats/onnx.md, got {} and {}",
              node.inputs.size(), node.outputs.size());
  attention.layer = node.Int("layer");
  attention.num_heads = node.Int("num_heads");
  attention.num_kv_heads = node.Int("num_kv_heads");
  attention.key_ranks = node.Ints("key_ranks");
  attention.scale = node.Float("scale", 0.0F);
  attention.window = node.Int("window", 0);
  const auto layers = static_cast<int64_t>(context.lowered().plan.attentions.size());
  RequireNode(attention.layer == layers, node, "expected layer {}, got {}", layers,
              attention.layer);
  RequireNode(attention.scale > 0.0F, node, "expected a scale above 0, got {}", attention.scale);
  RequireNode(attention.window >= 0, node, "expected a window of 0 or more tokens, got {}",
              attention.window);
  const InputWidths widths = {context.WidthOf(context.Flat(node, 0)),
                              context.WidthOf(context.Flat(node, 1)),
                              context.WidthOf(context.Flat(node, 2))};
  RequireNode(SizesFit(attention, widths), node,
              "expected heads, key ranks and widths that fit together, got {} heads over {}, {} "
              "key groups, widths {}, {}, {}",
              attention.num_heads, attention.num_kv_heads, attention.key_ranks.size(), widths.q,
              widths.k, widths.v);
  attention.stored_width = widths.k / static_cast<int64_t>(attention.key_ranks.size());
  attention.head_width = widths.v / attention.num_kv_heads;
  if (attention.latent) AddRebuild(node, context, attention.head_width, attention);
  return attention;
}

}  // namespace kvc::runtime
