#include "runtime/plan/lowering.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "runtime/plan/lowering_context.h"

namespace kvc::runtime {
namespace {

constexpr char kCacheDomain[] = "com.kvc";

class Lowerer {
 public:
  explicit Lowerer(const Graph& graph) : graph_(graph), context_(graph) {}

  LoweredGraph Run() {
    const auto opset = graph_.opsets.find("");
    const int64_t version = opset == graph_.opsets.end() ? 0 : opset->second;
    KVC_CHECK(version == 23 || version == 24, kUnsupported,
              "model.onnx: expected opset 23 or 24, got {}", version);
    for (const Node& node : graph_.nodes) LowerNode(node);
    Finish();
    return std::move(context_.lowered());
  }

 private:
  using Handler = void (Lowerer::*)(const Node&);

  void LowerNode(const Node& node) {
    static const std::map<std::string, Handler> kHandlers = {
        {"Gather", &Lowerer::Gather},
        {"Cast", &Lowerer::Cast},
        {"Transpose", &Lowerer::Transpose},
        {"Reshape", &Lowerer::Reshape},
        {"MatMul", &Lowerer::MatMul},
        {"Add", &Lowerer::Add},
        {"Mul", &Lowerer::Mul},
        {"Sigmoid", &Lowerer::Sigmoid},
        {"Gelu", &Lowerer::Gelu},
        {"RMSNormalization", &Lowerer::Norm},
        {"LayerNormalization", &Lowerer::Norm},
        {"RotaryEmbedding", &Lowerer::Rope},
    };
    if (IsShapeMath(node)) {
      for (const std::string& output : node.outputs) context_.Define(node, output, Value{});
      return;
    }
    if (node.domain == kCacheDomain &&
        (node.op == "CompressedAttention" || node.op == "CompressedLatentAttention" ||
         node.op == "CompressedPlainLatentAttention")) {
      Attention(node);
      return;
    }
    if (node.domain == kCacheDomain && node.op == "HeadProjection") {
      LowerHeadProjection(node, context_);
      return;
    }
    if (node.domain == kCacheDomain && node.op == "PairRotation") {
      LowerPairRotation(node, context_);
      return;
    }
    if (node.domain == kCacheDomain && node.op == "RotationRows") {
      LowerRotationRows(node, context_);
      return;
    }
    const auto handler = kHandlers.find(node.op);
    SupportNode(node.domain.empty() && handler != kHandlers.end(), node,
                "expected an operator of docs/formats/onnx.md, got {}{}",
                node.domain.empty() ? "" : node.domain + ".", node.op);
    SupportNode(node.outputs.size() == 1, node, "expected one output, got {}", node.outputs.size());
    (this->*handler->second)(node);
  }

  // Returns true for operators on shapes, masks and positions alone: their inputs are neither
  // activations nor floating-point weights.
  [[nodiscard]] bool IsShapeMath(const Node& node) const {
    static constexpr std::array kOps = {
        "Shape", "Gather", "Sub", "Range",  "Unsqueeze", "Cast", "GreaterOrEqual",
        "Equal", "And",    "Or",  "CumSum", "Max",       "Less"};
    if (!node.domain.empty() || node.inputs.empty()) return false;
    if (std::find(kOps.begin(), kOps.end(), node.op) == kOps.end()) return false;
    return std::all_of(node.inputs.begin(), node.inputs.end(), [&](const std::string& name) {
      const Value& value = context_.Get(node, name);
      if (value.kind == Value::Kind::kWeight) return value.tensor->dtype == DType::kI64;
      return value.kind == Value::Kind::kShapeMath || value.kind == Value::Kind::kTokenIds ||
             value.kind == Value::Kind::kPositions;
    });
  }

  void Gather(const Node& node) {
    const Tensor& table = context_.Weight(node, 0);
    const Value& index = context_.Input(node, 1);
    SupportNode(table.dims.size() == 2 && node.Int("axis", 0) == 0 && IsFloat(table), node,
                "expected rows gathered from a matrix of weights");
    const bool tokens = index.kind == Value::Kind::kTokenIds;
    SupportNode(tokens || index.kind == Value::Kind::kPositions, node,
                "expected input_ids or position_ids as the index, got \"{}\"", node.inputs[1]);
    const int64_t rows = table.dims[0];
    LoweredStep& step = context_.AddStep(
        node, tokens ? StepKind::kEmbedTokens : StepKind::kEmbedPositions, {}, table.dims[1]);
    step.step.table = context_.IdOf(table);
    if (!tokens) {
      context_.LimitPositions(rows);
      return;
    }
    int64_t& vocabulary = plan().vocab_size;
    RequireNode(vocabulary == 0 || vocabulary == rows, node,
                "expected one vocabulary, got {} and {} rows", rows, vocabulary);
    vocabulary = rows;
  }

  void Cast(const Node& node) {
    const Value& value = context_.Input(node, 0);
    constexpr int64_t kOnnxFloat = 1;
    SupportNode(node.Int("to") == kOnnxFloat &&
                    (value.kind == Value::Kind::kWeight || value.kind == Value::Kind::kActivation),
                node, "expected a cast of weights or embeddings to float, got type {}",
                node.Int("to"));
    context_.Define(node, node.outputs[0], value);
  }

  void Transpose(const Node& node) {
    Value value = context_.Input(node, 0);
    SupportNode(value.kind == Value::Kind::kWeight && value.tensor->dims.size() == 2 &&
                    node.Ints("perm") == std::vector<int64_t>({1, 0}),
                node, "expected a transposed matrix of weights");
    value.transposed = !value.transposed;
    context_.Define(node, node.outputs[0], value);
  }

  // [.., heads * D] -> [.., heads, D] and back: both are the same memory.
  void Reshape(const Node& node) {
    Value value = context_.Input(node, 0);
    const Tensor& shape = context_.Weight(node, 1);
    SupportNode(value.kind == Value::Kind::kActivation && shape.dtype == DType::kI64 &&
                    shape.dims.size() == 1,
                node, "expected an activation and a constant shape");
    const auto* dims = shape.as<int64_t>();
    const int64_t count = shape.elements;
    const int64_t width = context_.WidthOf(value.reg);
    const bool kept = count >= 3 && dims[0] == 0 && dims[1] == 0;
    const bool split = kept && count == 4 && dims[2] > 0 && dims[3] > 0 && width % dims[3] == 0 &&
                       width / dims[3] == dims[2];
    SupportNode(split || (kept && count == 3 && dims[2] == -1), node,
                "expected the shape [0, 0, heads, width] or [0, 0, -1] of a row {} wide", width);
    value.heads = split ? dims[2] : 1;
    context_.Define(node, node.outputs[0], value);
  }

  void MatMul(const Node& node) {
    const int64_t x = context_.Flat(node, 0);
    const Value& weight = context_.Input(node, 1);
    SupportNode(weight.kind == Value::Kind::kWeight && weight.transposed && IsFloat(*weight.tensor),
                node, "expected a weight stored [out, in] and transposed as the second factor");
    const Tensor& tensor = *weight.tensor;
    RequireNode(tensor.dims[1] == context_.WidthOf(x), node,
                "expected a weight [out, {}], got [{}, {}]", context_.WidthOf(x), tensor.dims[0],
                tensor.dims[1]);
    LoweredStep& step = context_.AddStep(node, StepKind::kLinear, {x}, tensor.dims[0]);
    step.step.linear = static_cast<int64_t>(plan().linears.size());
    plan().linears.push_back({{context_.IdOf(tensor)}, tensor.dims[0], tensor.dims[1]});
  }

  void Add(const Node& node) {
    const Value& left = context_.Input(node, 0);
    const Value& right = context_.Input(node, 1);
    if (left.kind == Value::Kind::kActivation && right.kind == Value::Kind::kWeight) {
      FoldBias(node, left);
      return;
    }
    const int64_t a = context_.Flat(node, 0);
    const int64_t b = context_.Flat(node, 1);
    RequireSameWidth(node, a, b);
    context_.AddStep(node, StepKind::kAdd, {a, b}, context_.WidthOf(a));
  }

  void FoldBias(const Node& node, const Value& product) {
    LoweredStep* producer = nullptr;
    for (LoweredStep& step : context_.lowered().steps) {
      if (step.out == product.reg) producer = &step;
    }
    const bool product_of_weights =
        producer != nullptr && (producer->step.kind == StepKind::kLinear ||
                                producer->step.kind == StepKind::kProjectHeads);
    // The bias of heads that share a matrix would need one copy per head.
    SupportNode(product_of_weights && !producer->step.bias &&
                    producer->step.heads == producer->step.groups &&
                    context_.uses(node.inputs[0]) == 1,
                node, "expected a vector of weights to be added to a product used only here");
    producer->step.bias = context_.Vector(node, 1, context_.WidthOf(product.reg));
    context_.Define(node, node.outputs[0], product);
  }

  void Mul(const Node& node) {
    const Value& left = context_.Input(node, 0);
    const Value& right = context_.Input(node, 1);
    if (left.kind == Value::Kind::kActivation && right.kind == Value::Kind::kSigmoid &&
        left.reg == right.reg) {
      Value silu = right;
      silu.kind = Value::Kind::kSilu;
      context_.Define(node, node.outputs[0], silu);
      return;
    }
    if (left.kind == Value::Kind::kActivation && right.kind == Value::Kind::kActivation) {
      const int64_t a = context_.Flat(node, 0);
      const int64_t b = context_.Flat(node, 1);
      RequireSameWidth(node, a, b);
      context_.AddStep(node, StepKind::kMul, {a, b}, context_.WidthOf(a));
      return;
    }
    SupportNode(left.kind == Value::Kind::kSilu && right.kind == Value::Kind::kActivation, node,
                "expected x * sigmoid(x), that times an activation, or a product of activations");
    RequireSameWidth(node, left.reg, right.reg);
    context_.AddStep(node, StepKind::kSiluMul, {left.reg, right.reg}, context_.WidthOf(left.reg));
  }

  void Sigmoid(const Node& node) {
    Value value = context_.Input(node, 0);
    SupportNode(value.kind == Value::Kind::kActivation && value.heads == 1, node,
                "expected an activation");
    value.kind = Value::Kind::kSigmoid;
    context_.Define(node, node.outputs[0], value);
  }

  void Gelu(const Node& node) {
    const int64_t x = context_.Flat(node, 0);
    const std::string form = node.Text("approximate", "none");
    SupportNode(form == "none" || form == "tanh", node,
                "expected approximate none or tanh, got \"{}\"", form);
    const StepKind kind = form == "tanh" ? StepKind::kGeluTanh : StepKind::kGeluExact;
    context_.AddStep(node, kind, {x}, context_.WidthOf(x));
  }

  void Norm(const Node& node) {
    const Value x = context_.Input(node, 0);
    const bool layer_norm = node.op == "LayerNormalization";
    SupportNode(x.kind == Value::Kind::kActivation && node.Int("axis", -1) == -1 &&
                    node.inputs.size() == (layer_norm ? 3U : 2U) && (x.heads == 1 || !layer_norm),
                node, "expected a norm of an activation's last axis with its weights");
    const int64_t width = context_.WidthOf(x.reg) / x.heads;
    const DataId weight = context_.Vector(node, 1, width);
    const DataId bias = layer_norm ? context_.Vector(node, 2, width) : DataId{};
    LoweredStep& step =
        context_.AddStep(node, layer_norm ? StepKind::kLayerNorm : StepKind::kRmsNorm, {x.reg},
                         context_.WidthOf(x.reg), x.heads);
    step.step.weight = weight;
    step.step.bias = bias;
    step.step.epsilon = node.Float("epsilon", 1e-5F);
    step.step.heads = x.heads;
  }

  void Rope(const Node& node) {
    const int64_t x = context_.Flat(node, 0);
    const int64_t width = context_.WidthOf(x);
    const int64_t heads = node.Int("num_heads");
    SupportNode(
        node.inputs.size() == 4 && context_.AtPositions(node, 3) && node.Int("interleaved", 0) == 0,
        node, "expected a rotation in half-split pairs at position_ids");
    RequireNode(heads > 0 && heads <= width && width % (2 * heads) == 0, node,
                "expected num_heads that divides {} into even widths, got {}", width, heads);
    const int64_t part = node.Int("rotary_embedding_dim", 0);
    const int64_t rotary = part == 0 ? width / heads : part;
    RequireNode(rotary > 0 && rotary % 2 == 0 && rotary <= width / heads, node,
                "expected an even rotary_embedding_dim up to {}, got {}", width / heads, rotary);
    const DataId cos = context_.Table(node, 1, rotary / 2);
    const DataId sin = context_.Table(node, 2, rotary / 2);
    LoweredStep& step = context_.AddStep(node, StepKind::kRope, {x}, width);
    step.step.heads = heads;
    step.step.cos = cos;
    step.step.sin = sin;
  }

  void Attention(const Node& node) {
    AttentionStep attention = ReadAttention(node, context_);
    const int64_t q = context_.Flat(node, 0);
    const int64_t k = context_.Flat(node, 1);
    const int64_t v = context_.Flat(node, 2);
    const int64_t head_width = context_.WidthOf(v) / attention.num_kv_heads;
    LoweredStep& step =
        context_.AddStep(node, StepKind::kAttention, {q, k, v}, attention.num_heads * head_width);
    step.step.attention = attention.layer;
    context_.Define(node, node.outputs[1], Value{});
    context_.Define(node, node.outputs[2], Value{});
    plan().attentions.push_back(std::move(attention));
  }

  void RequireSameWidth(const Node& node, int64_t a, int64_t b) const {
    RequireNode(context_.WidthOf(a) == context_.WidthOf(b), node,
                "expected rows of one width, got {} and {}", context_.WidthOf(a),
                context_.WidthOf(b));
  }

  void Finish() {
    LoweredGraph& lowered = context_.lowered();
    KVC_CHECK(!plan().attentions.empty(), kUnsupported,
              "model.onnx: expected nodes com.kvc.CompressedAttention, got none");
    KVC_CHECK(plan().max_positions > 0, kUnsupported,
              "model.onnx: expected position embeddings or rotation tables, got none");
    const Value* logits = context_.Output("logits");
    KVC_CHECK(logits != nullptr && logits->kind == Value::Kind::kActivation &&
                  lowered.steps.back().out == logits->reg &&
                  lowered.steps.back().step.kind == StepKind::kLinear &&
                  context_.WidthOf(logits->reg) == plan().vocab_size,
              kUnsupported,
              "model.onnx: expected an output logits over the vocabulary from the last product");
    lowered.logits = logits->reg;
  }

  [[nodiscard]] Plan& plan() { return context_.lowered().plan; }

  const Graph& graph_;
  LoweringContext context_;
};

}  // namespace

LoweredGraph Lower(const Graph& graph) { return Lowerer(graph).Run(); }

}  // namespace kvc::runtime
