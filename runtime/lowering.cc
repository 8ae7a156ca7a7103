#include "runtime/lowering.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "core/error.h"

namespace kvc::runtime {
namespace {

constexpr char kCacheDomain[] = "com.kvc";

// What a name stands for while the nodes are walked.
struct Value {
  enum class Kind {
    kTokenIds,
    kPositions,
    kShapeMath,   // mask and index arithmetic: no step
    kWeight,      // an initializer, through casts and a transposition
    kActivation,  // a register
    kSigmoid,     // sigmoid(reg), pending
    kSilu,        // reg * sigmoid(reg), pending
  };
  Kind kind = Kind::kShapeMath;
  const Tensor* tensor = nullptr;
  bool transposed = false;
  int64_t reg = -1;
  int64_t heads = 1;  // slices that a Reshape has split a row into
};

class Lowerer {
 public:
  explicit Lowerer(const Graph& graph) : graph_(graph) {}

  LoweredGraph Run() {
    CheckOpset();
    for (const Node& node : graph_.nodes) {
      for (const std::string& input : node.inputs) ++uses_[input];
    }
    for (const std::string& output : graph_.outputs) ++uses_[output];
    for (const std::string& input : graph_.inputs) {
      Value value;
      if (input == "input_ids") value.kind = Value::Kind::kTokenIds;
      if (input == "position_ids") value.kind = Value::Kind::kPositions;
      values_.emplace(input, value);
    }
    for (const auto& [name, tensor] : graph_.initializers) {
      Value value;
      value.kind = Value::Kind::kWeight;
      value.tensor = &tensor;
      values_[name] = value;
    }
    for (const Node& node : graph_.nodes) LowerNode(node);
    Finish();
    return std::move(lowered_);
  }

 private:
  using Handler = void (Lowerer::*)(const Node&);

  void CheckOpset() const {
    const auto it = graph_.opsets.find("");
    const int64_t version = it == graph_.opsets.end() ? 0 : it->second;
    KVC_CHECK(version == 23 || version == 24,
              kUnsupported,
              "model.onnx: expected opset 23 or 24, got ",
              version);
  }

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
      for (const std::string& output : node.outputs) Define(node, output, Value{});
      return;
    }
    if (node.domain == kCacheDomain &&
        (node.op == "CompressedAttention" || node.op == "CompressedLatentAttention")) {
      Attention(node);
      return;
    }
    const auto handler = kHandlers.find(node.op);
    KVC_CHECK(node.domain.empty() && handler != kHandlers.end(),
              kUnsupported,
              "node \"",
              node.name,
              "\": expected an operator of docs/formats/onnx.md, got ",
              node.domain.empty() ? "" : node.domain + ".",
              node.op);
    KVC_CHECK(node.outputs.size() == 1,
              kUnsupported,
              "node \"",
              node.name,
              "\": expected one output, got ",
              node.outputs.size());
    (this->*handler->second)(node);
  }

  // Operators on shapes, masks and positions alone: their inputs are neither activations nor
  // weights in a floating type.
  bool IsShapeMath(const Node& node) {
    static constexpr std::array kOps = {"Shape",
                                        "Gather",
                                        "Sub",
                                        "Range",
                                        "Unsqueeze",
                                        "Cast",
                                        "GreaterOrEqual",
                                        "Equal",
                                        "And",
                                        "Or",
                                        "CumSum",
                                        "Max"};
    if (!node.domain.empty() || node.inputs.empty()) return false;
    if (std::find(kOps.begin(), kOps.end(), node.op) == kOps.end()) return false;
    return std::all_of(node.inputs.begin(), node.inputs.end(), [&](const std::string& name) {
      const Value& value = Get(node, name);
      if (value.kind == Value::Kind::kWeight) return value.tensor->dtype == DType::kI64;
      return value.kind == Value::Kind::kShapeMath || value.kind == Value::Kind::kTokenIds ||
             value.kind == Value::Kind::kPositions;
    });
  }

  void Gather(const Node& node) {
    const Value& table = Input(node, 0);
    const Value& index = Input(node, 1);
    KVC_CHECK(table.kind == Value::Kind::kWeight && table.tensor->dims.size() == 2 &&
                  !table.transposed && node.Int("axis", 0) == 0 && IsFloat(*table.tensor),
              kUnsupported,
              "node \"",
              node.name,
              "\": expected rows gathered from a matrix of weights");
    KVC_CHECK(index.kind == Value::Kind::kTokenIds || index.kind == Value::Kind::kPositions,
              kUnsupported,
              "node \"",
              node.name,
              "\": expected input_ids or position_ids as the index, got \"",
              node.inputs[1],
              "\"");
    const bool tokens = index.kind == Value::Kind::kTokenIds;
    const int64_t rows = table.tensor->dims[0];
    LoweredStep& lowered = AddStep(node,
                                   tokens ? StepKind::kEmbedTokens : StepKind::kEmbedPositions,
                                   {},
                                   table.tensor->dims[1]);
    lowered.step.table = table.tensor;
    if (tokens) {
      KVC_CHECK(lowered_.plan.vocab_size == 0 || lowered_.plan.vocab_size == rows,
                kBadInput,
                "node \"",
                node.name,
                "\": expected one vocabulary, got ",
                rows,
                " and ",
                lowered_.plan.vocab_size,
                " rows");
      lowered_.plan.vocab_size = rows;
    } else {
      LimitPositions(rows);
    }
  }

  void Cast(const Node& node) {
    Value value = Input(node, 0);
    KVC_CHECK(node.Int("to") == 1 &&
                  (value.kind == Value::Kind::kWeight || value.kind == Value::Kind::kActivation),
              kUnsupported,
              "node \"",
              node.name,
              "\": expected a cast of weights or embeddings to float, got type ",
              node.Int("to"));
    Define(node, node.outputs[0], value);
  }

  void Transpose(const Node& node) {
    Value value = Input(node, 0);
    KVC_CHECK(value.kind == Value::Kind::kWeight && value.tensor->dims.size() == 2 &&
                  node.Ints("perm") == std::vector<int64_t>({1, 0}),
              kUnsupported,
              "node \"",
              node.name,
              "\": expected a transposed matrix of weights");
    value.transposed = !value.transposed;
    Define(node, node.outputs[0], value);
  }

  // [.., heads * D] -> [.., heads, D] and back: both are the same memory.
  void Reshape(const Node& node) {
    Value value = Input(node, 0);
    const Value& shape = Input(node, 1);
    KVC_CHECK(value.kind == Value::Kind::kActivation && shape.kind == Value::Kind::kWeight &&
                  shape.tensor->dtype == DType::kI64 && shape.tensor->dims.size() == 1,
              kUnsupported,
              "node \"",
              node.name,
              "\": expected an activation and a constant shape");
    const auto* dims = shape.tensor->as<int64_t>();
    const int64_t count = shape.tensor->elements;
    const bool kept = count >= 3 && dims[0] == 0 && dims[1] == 0;
    const bool split = kept && count == 4 && dims[2] > 0 && dims[3] > 0 &&
                       WidthOf(value.reg) % dims[3] == 0 && WidthOf(value.reg) / dims[3] == dims[2];
    KVC_CHECK(split || (kept && count == 3 && dims[2] == -1),
              kUnsupported,
              "node \"",
              node.name,
              "\": expected the shape [0, 0, heads, width] or [0, 0, -1] of a row ",
              WidthOf(value.reg),
              " wide");
    value.heads = split ? dims[2] : 1;
    Define(node, node.outputs[0], value);
  }

  void MatMul(const Node& node) {
    const int64_t x = Flat(node, 0);
    const Value& weight = Input(node, 1);
    KVC_CHECK(weight.kind == Value::Kind::kWeight && weight.transposed && IsFloat(*weight.tensor),
              kUnsupported,
              "node \"",
              node.name,
              "\": expected a weight stored [out, in] and transposed as the second factor");
    const Tensor& tensor = *weight.tensor;
    KVC_CHECK(tensor.dims[1] == WidthOf(x),
              kBadInput,
              "node \"",
              node.name,
              "\": expected a weight [out, ",
              WidthOf(x),
              "], got [",
              tensor.dims[0],
              ", ",
              tensor.dims[1],
              "]");
    LoweredStep& lowered = AddStep(node, StepKind::kLinear, {x}, tensor.dims[0]);
    lowered.step.linear = static_cast<int64_t>(lowered_.plan.linears.size());
    lowered_.plan.linears.push_back({tensor.data, tensor.dtype, tensor.dims[0], tensor.dims[1]});
  }

  void Add(const Node& node) {
    const Value& left = Input(node, 0);
    const Value& right = Input(node, 1);
    if (left.kind == Value::Kind::kActivation && right.kind == Value::Kind::kWeight) {
      FoldBias(node, left, *right.tensor);
      return;
    }
    const int64_t a = Flat(node, 0);
    const int64_t b = Flat(node, 1);
    KVC_CHECK(WidthOf(a) == WidthOf(b),
              kBadInput,
              "node \"",
              node.name,
              "\": expected rows of one width, got ",
              WidthOf(a),
              " and ",
              WidthOf(b));
    AddStep(node, StepKind::kAdd, {a, b}, WidthOf(a));
  }

  void FoldBias(const Node& node, const Value& product, const Tensor& bias) {
    LoweredStep* producer = nullptr;
    for (LoweredStep& lowered : lowered_.steps) {
      if (lowered.out == product.reg) producer = &lowered;
    }
    KVC_CHECK(producer != nullptr && producer->step.kind == StepKind::kLinear &&
                  producer->step.bias == nullptr && uses_[node.inputs[0]] == 1,
              kUnsupported,
              "node \"",
              node.name,
              "\": expected a vector of weights to be added to a product used only here");
    producer->step.bias = Vector(node, bias, WidthOf(product.reg));
    Define(node, node.outputs[0], product);
  }

  void Mul(const Node& node) {
    const Value& left = Input(node, 0);
    const Value& right = Input(node, 1);
    if (left.kind == Value::Kind::kActivation && right.kind == Value::Kind::kSigmoid &&
        left.reg == right.reg) {
      Value silu = right;
      silu.kind = Value::Kind::kSilu;
      Define(node, node.outputs[0], silu);
      return;
    }
    KVC_CHECK(left.kind == Value::Kind::kSilu && right.kind == Value::Kind::kActivation,
              kUnsupported,
              "node \"",
              node.name,
              "\": expected x * sigmoid(x), or that times a second activation");
    KVC_CHECK(WidthOf(left.reg) == WidthOf(right.reg),
              kBadInput,
              "node \"",
              node.name,
              "\": expected rows of one width, got ",
              WidthOf(left.reg),
              " and ",
              WidthOf(right.reg));
    AddStep(node, StepKind::kSiluMul, {left.reg, right.reg}, WidthOf(left.reg));
  }

  void Sigmoid(const Node& node) {
    Value value = Input(node, 0);
    KVC_CHECK(value.kind == Value::Kind::kActivation && value.heads == 1,
              kUnsupported,
              "node \"",
              node.name,
              "\": expected an activation");
    value.kind = Value::Kind::kSigmoid;
    Define(node, node.outputs[0], value);
  }

  void Gelu(const Node& node) {
    const int64_t x = Flat(node, 0);
    const std::string form = node.Text("approximate", "none");
    KVC_CHECK(form == "none" || form == "tanh",
              kUnsupported,
              "node \"",
              node.name,
              "\": expected approximate none or tanh, got \"",
              form,
              "\"");
    AddStep(node, form == "tanh" ? StepKind::kGeluTanh : StepKind::kGeluExact, {x}, WidthOf(x));
  }

  void Norm(const Node& node) {
    const Value x = Input(node, 0);
    const bool layer_norm = node.op == "LayerNormalization";
    KVC_CHECK(x.kind == Value::Kind::kActivation && node.Int("axis", -1) == -1 &&
                  node.inputs.size() == (layer_norm ? 3U : 2U),
              kUnsupported,
              "node \"",
              node.name,
              "\": expected a norm of an activation's last axis with its weights");
    const int64_t width = WidthOf(x.reg) / x.heads;
    const float* weight = Vector(node, Weight(node, 1), width);
    const float* bias = layer_norm ? Vector(node, Weight(node, 2), width) : nullptr;
    LoweredStep& lowered = AddStep(
        node, layer_norm ? StepKind::kLayerNorm : StepKind::kRmsNorm, {x.reg}, WidthOf(x.reg));
    lowered.step.weight = weight;
    lowered.step.bias = bias;
    lowered.step.epsilon = node.Float("epsilon", 1e-5F);
    lowered.step.heads = x.heads;
    values_[node.outputs[0]].heads = x.heads;
  }

  void Rope(const Node& node) {
    const int64_t x = Flat(node, 0);
    const int64_t heads = node.Int("num_heads");
    KVC_CHECK(node.inputs.size() == 4 && Input(node, 3).kind == Value::Kind::kPositions &&
                  node.Int("interleaved", 0) == 0 && node.Int("rotary_embedding_dim", 0) == 0,
              kUnsupported,
              "node \"",
              node.name,
              "\": expected a rotation of whole heads in half-split pairs at position_ids");
    KVC_CHECK(heads > 0 && WidthOf(x) % (2 * heads) == 0,
              kBadInput,
              "node \"",
              node.name,
              "\": expected num_heads that divides ",
              WidthOf(x),
              " into even widths, got ",
              heads);
    const ConstMatrixF cos = Table(node, 1, WidthOf(x) / heads / 2);
    const ConstMatrixF sin = Table(node, 2, WidthOf(x) / heads / 2);
    LoweredStep& lowered = AddStep(node, StepKind::kRope, {x}, WidthOf(x));
    lowered.step.heads = heads;
    lowered.step.cos = cos;
    lowered.step.sin = sin;
  }

  void Attention(const Node& node) {
    const bool latent = node.op == "CompressedLatentAttention";
    KVC_CHECK(node.inputs.size() >= (latent ? 10U : 6U) && node.outputs.size() == 3,
              kBadInput,
              "node \"",
              node.name,
              "\": expected the inputs and outputs of docs/formats/onnx.md, got ",
              node.inputs.size(),
              " and ",
              node.outputs.size());
    AttentionStep attention;
    attention.layer = node.Int("layer");
    attention.num_heads = node.Int("num_heads");
    attention.num_kv_heads = node.Int("num_kv_heads");
    attention.key_ranks = node.Ints("key_ranks");
    attention.scale = node.Float("scale", 0.0F);
    attention.latent = latent;
    const int64_t q = Flat(node, 0);
    const int64_t k = Flat(node, 1);
    const int64_t v = Flat(node, 2);
    CheckAttention(node, attention, WidthOf(q), WidthOf(k), WidthOf(v));
    attention.stored_width = WidthOf(k) / static_cast<int64_t>(attention.key_ranks.size());
    const int64_t head_width = WidthOf(v) / attention.num_kv_heads;
    if (latent) AddRebuild(node, head_width, attention);
    for (const std::string& output : node.outputs) Define(node, output, Value{});
    LoweredStep& lowered =
        AddStep(node, StepKind::kAttention, {q, k, v}, attention.num_heads * head_width);
    lowered.step.attention = attention.layer;
    lowered_.plan.attentions.push_back(std::move(attention));
  }

  void CheckAttention(const Node& node,
                      const AttentionStep& attention,
                      int64_t q_width,
                      int64_t k_width,
                      int64_t v_width) const {
    const int64_t heads = attention.num_heads;
    const int64_t kv_heads = attention.num_kv_heads;
    const auto groups = static_cast<int64_t>(attention.key_ranks.size());
    const bool sizes =
        kv_heads > 0 && heads > 0 && heads % kv_heads == 0 && groups > 0 &&
        kv_heads % groups == 0 && (attention.latent || groups == kv_heads) &&
        v_width % kv_heads == 0 && k_width % groups == 0 && q_width % heads == 0 &&
        q_width / heads == (attention.latent ? v_width / kv_heads : k_width / groups);
    const bool ranks =
        sizes && std::all_of(attention.key_ranks.begin(),
                             attention.key_ranks.end(),
                             [&](int64_t rank) { return rank > 0 && rank <= k_width / groups; });
    KVC_CHECK(ranks && attention.scale > 0.0F,
              kBadInput,
              "node \"",
              node.name,
              "\": expected heads, ranks and widths that fit together, got ",
              heads,
              " heads over ",
              kv_heads,
              ", ",
              groups,
              " key groups, widths ",
              q_width,
              ", ",
              k_width,
              ", ",
              v_width);
    KVC_CHECK(attention.layer == static_cast<int64_t>(lowered_.plan.attentions.size()),
              kBadInput,
              "node \"",
              node.name,
              "\": expected layer ",
              lowered_.plan.attentions.size(),
              ", got ",
              attention.layer);
  }

  void AddRebuild(const Node& node, int64_t head_width, AttentionStep& attention) {
    const Tensor& matrix = Weight(node, 7);
    const int64_t rows = attention.num_kv_heads * head_width;
    KVC_CHECK(matrix.dtype == DType::kF32 && matrix.dims.size() == 2 && matrix.dims[0] == rows &&
                  matrix.dims[1] == attention.stored_width && head_width % 2 == 0,
              kBadInput,
              "node \"",
              node.name,
              "\": expected a float rebuild matrix [",
              rows,
              ", ",
              attention.stored_width,
              "]");
    kernels::KeyRebuild rebuild;
    rebuild.cos = Table(node, 8, head_width / 2);
    rebuild.sin = Table(node, 9, head_width / 2);
    const bool has_bias = node.inputs.size() > 10 && !node.inputs[10].empty();
    const bool has_norm = node.inputs.size() > 11 && !node.inputs[11].empty();
    const float* bias = has_bias ? Vector(node, Weight(node, 10), rows) : nullptr;
    if (has_norm) {
      rebuild.norm_weight = Vector(node, Weight(node, 11), head_width);
      rebuild.norm_epsilon = BodyNormEpsilon(node);
    }
    const auto groups = static_cast<int64_t>(attention.key_ranks.size());
    const int64_t heads_per_group = attention.num_kv_heads / groups;
    for (int64_t g = 0; g < attention.num_kv_heads; ++g) {
      rebuild.rebuild = {matrix.as<float>() + g * head_width * attention.stored_width,
                         head_width,
                         attention.key_ranks[g / heads_per_group],
                         attention.stored_width};
      rebuild.bias = bias != nullptr ? bias + g * head_width : nullptr;
      attention.rebuild.push_back(rebuild);
    }
  }

  // The epsilon of the key norm stands only in the function's body.
  float BodyNormEpsilon(const Node& node) const {
    for (const Function& function : graph_.functions) {
      if (function.domain != node.domain || function.name != node.op) continue;
      for (const Node& inner : function.nodes) {
        if (inner.op == "RMSNormalization") return inner.Float("epsilon", 1e-5F);
      }
    }
    KVC_THROW(kBadInput,
              "node \"",
              node.name,
              "\": expected a function body with RMSNormalization, got none");
  }

  void Finish() {
    KVC_CHECK(!lowered_.plan.attentions.empty(),
              kUnsupported,
              "model.onnx: expected nodes com.kvc.CompressedAttention, got none");
    const auto it = values_.find("logits");
    KVC_CHECK(it != values_.end() && it->second.kind == Value::Kind::kActivation &&
                  !lowered_.steps.empty() && lowered_.steps.back().out == it->second.reg &&
                  lowered_.steps.back().step.kind == StepKind::kLinear &&
                  WidthOf(it->second.reg) == lowered_.plan.vocab_size,
              kUnsupported,
              "model.onnx: expected an output logits over the vocabulary from the last product");
    lowered_.logits = it->second.reg;
    KVC_CHECK(lowered_.plan.max_positions > 0,
              kUnsupported,
              "model.onnx: expected position embeddings or rotation tables, got none");
  }

  // --- helpers ---

  static bool IsFloat(const Tensor& tensor) {
    return tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 ||
           tensor.dtype == DType::kBF16;
  }

  const Value& Get(const Node& node, const std::string& name) const {
    const auto it = values_.find(name);
    KVC_CHECK(it != values_.end(),
              kBadInput,
              "node \"",
              node.name,
              "\": expected its inputs to be made by earlier nodes, got \"",
              name,
              "\"");
    return it->second;
  }

  const Value& Input(const Node& node, size_t index) const {
    KVC_CHECK(index < node.inputs.size(),
              kBadInput,
              "node \"",
              node.name,
              "\": expected input ",
              index,
              ", got ",
              node.inputs.size(),
              " inputs");
    return Get(node, node.inputs[index]);
  }

  // The register of an input that is an activation of whole rows.
  int64_t Flat(const Node& node, size_t index) const {
    const Value& value = Input(node, index);
    KVC_CHECK(value.kind == Value::Kind::kActivation && value.heads == 1,
              kUnsupported,
              "node \"",
              node.name,
              "\": expected an activation [batch, sequence, width] as input ",
              index);
    return value.reg;
  }

  const Tensor& Weight(const Node& node, size_t index) const {
    const Value& value = Input(node, index);
    KVC_CHECK(value.kind == Value::Kind::kWeight && !value.transposed,
              kUnsupported,
              "node \"",
              node.name,
              "\": expected an initializer as input ",
              index);
    return *value.tensor;
  }

  static const float* Vector(const Node& node, const Tensor& tensor, int64_t width) {
    KVC_CHECK(tensor.dtype == DType::kF32 && tensor.dims == std::vector<int64_t>({width}),
              kBadInput,
              "node \"",
              node.name,
              "\": initializer ",
              tensor.name,
              ": expected ",
              width,
              " floats, got ",
              tensor.elements,
              " elements");
    return tensor.as<float>();
  }

  ConstMatrixF Table(const Node& node, size_t index, int64_t width) {
    const Tensor& tensor = Weight(node, index);
    KVC_CHECK(tensor.dtype == DType::kF32 && tensor.dims.size() == 2 && tensor.dims[1] == width,
              kBadInput,
              "node \"",
              node.name,
              "\": initializer ",
              tensor.name,
              ": expected a float table [positions, ",
              width,
              "]");
    LimitPositions(tensor.dims[0]);
    return {tensor.as<float>(), tensor.dims[0], width};
  }

  void LimitPositions(int64_t rows) {
    int64_t& limit = lowered_.plan.max_positions;
    limit = limit == 0 ? rows : std::min(limit, rows);
  }

  [[nodiscard]] int64_t WidthOf(int64_t reg) const { return lowered_.registers[reg].width; }

  void Define(const Node& node, const std::string& name, const Value& value) {
    KVC_CHECK(values_.emplace(name, value).second,
              kBadInput,
              "node \"",
              node.name,
              "\": expected a new name for its output, got \"",
              name,
              "\" again");
  }

  // Adds a step that writes a new register, and gives the node's first output that register.
  LoweredStep& AddStep(const Node& node, StepKind kind, std::vector<int64_t> in, int64_t width) {
    const auto reg = static_cast<int64_t>(lowered_.registers.size());
    lowered_.registers.push_back({width, -1, 0});
    Value value;
    value.kind = Value::Kind::kActivation;
    value.reg = reg;
    if (kind == StepKind::kAttention) {
      values_[node.outputs[0]] = value;
    } else {
      Define(node, node.outputs[0], value);
    }
    LoweredStep& lowered = lowered_.steps.emplace_back();
    lowered.step.kind = kind;
    lowered.step.node = node.name;
    lowered.in = std::move(in);
    lowered.out = reg;
    return lowered;
  }

  const Graph& graph_;
  LoweredGraph lowered_;
  std::map<std::string, Value> values_;
  std::map<std::string, int64_t> uses_;
};

}  // namespace

LoweredGraph Lower(const Graph& graph) { return Lowerer(graph).Run(); }

}  // namespace kvc::runtime
