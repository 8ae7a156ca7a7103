#pragma once
// The meanings of names while the nodes of a graph are lowered, and checked access to them. Part of
// lowering.h; nothing else includes it.

#include <map>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "runtime/plan/lowering.h"

namespace kvc::runtime {

struct Value {
  enum class Kind {
    kTokenIds,
    kPositions,
    kRotationRows,  // of positions, com.kvc.RotationRows
    kShapeMath,     // mask and index arithmetic: no step
    kWeight,        // an initializer, through casts and a transposition
    kActivation,    // a register
    kSigmoid,       // sigmoid(reg), pending
    kSilu,          // reg * sigmoid(reg), pending
  };
  Kind kind = Kind::kShapeMath;
  const Tensor* tensor = nullptr;
  bool transposed = false;
  int64_t reg = -1;
  int64_t heads = 1;  // slices that a Reshape has split a row into
};

// Names and their values. All accessors throw kBadInput for names that no earlier node made and for
// missing inputs, kUnsupported for a value of another kind, naming the node.
class LoweringContext {
 public:
  explicit LoweringContext(const Graph& graph);

  [[nodiscard]] const Graph& graph() const { return graph_; }
  [[nodiscard]] LoweredGraph& lowered() { return lowered_; }
  [[nodiscard]] int64_t WidthOf(int64_t reg) const { return lowered_.registers[reg].width; }

  [[nodiscard]] const Value& Get(const Node& node, const std::string& name) const;
  [[nodiscard]] const Value& Input(const Node& node, size_t index) const;
  // Returns the value of a graph output, or null.
  [[nodiscard]] const Value* Output(const std::string& name) const;
  // Returns the register of an input that is an activation of whole rows.
  [[nodiscard]] int64_t Flat(const Node& node, size_t index) const;
  // Returns an initializer in its own order.
  [[nodiscard]] const Tensor& Weight(const Node& node, size_t index) const;
  // Returns the id by which steps name a tensor of the graph.
  [[nodiscard]] DataId IdOf(const Tensor& tensor);
  // Returns a float initializer of `width` elements.
  [[nodiscard]] DataId Vector(const Node& node, size_t index, int64_t width);
  // Returns true for the positions at which the plan's rotations look into their tables.
  [[nodiscard]] bool AtPositions(const Node& node, size_t index) const;
  // Returns a float initializer [positions, width], which limits the plan's positions.
  [[nodiscard]] DataId Table(const Node& node, size_t index, int64_t width);
  void LimitPositions(int64_t rows);
  // Returns the number of nodes and graph outputs that read a name.
  [[nodiscard]] int64_t uses(const std::string& name) const;

  void Define(const Node& node, const std::string& name, const Value& value);
  // Adds a step that writes a new register, the node's first output, whose rows are split into
  // `heads`.
  LoweredStep& AddStep(
      const Node& node, StepKind kind, std::vector<int64_t> in, int64_t width, int64_t heads = 1);

 private:
  const Graph& graph_;
  LoweredGraph lowered_;
  std::map<std::string, Value> values_;
  std::map<std::string, int64_t> uses_;
  std::map<std::string, int64_t> tensor_ids_;  // places in Plan::tensors
};

// Throw an error that begins with the node's name: `node "layers.0.q.matmul": expected ...`.
template <class... Args>
void RequireNode(bool holds,
                 const Node& node,
                 fmt::format_string<const Args&...> text,
                 const Args&... args) {
  KVC_CHECK(holds, kBadInput, "node \"{}\": {}", node.name, fmt::format(text, args...));
}
template <class... Args>
void SupportNode(bool holds,
                 const Node& node,
                 fmt::format_string<const Args&...> text,
                 const Args&... args) {
  KVC_CHECK(holds, kUnsupported, "node \"{}\": {}", node.name, fmt::format(text, args...));
}

// Returns true for F32, F16, BF16.
[[nodiscard]] bool IsFloat(const Tensor& tensor);

// Lower com.kvc.HeadProjection, com.kvc.PairRotation and com.kvc.RotationRows.
void LowerHeadProjection(const Node& node, LoweringContext& context);
void LowerPairRotation(const Node& node, LoweringContext& context);
void LowerRotationRows(const Node& node, LoweringContext& context);

// Reads the cache node: checks that heads, ranks and widths fit together, reads the rebuild of a
// latent.
[[nodiscard]] AttentionStep ReadAttention(const Node& node, LoweringContext& context);

}  // namespace kvc::runtime
