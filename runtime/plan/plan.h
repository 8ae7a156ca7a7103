#pragma once
// The plan that the runtime executes: the steps of a decoder over rows of tokens, cut into sections
// between which exactly one activation [T, E] is live. Section 0 makes it from token ids, one
// section per layer transforms it, the last one turns it into logits. The cuts let a prompt go
// through one layer completely before the next one starts.
//
// A plan depends on no device: its steps name what they read, tensors of the graph and constants of
// the plan, and point to nothing. A backend makes what its processor needs from graph and plan
// (PreparedModel). A plan is immutable once made; any number of threads, backends and sessions
// share it.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/load/graph.h"

namespace kvc::runtime {

enum class StepKind {
  kEmbedTokens,     // out = table[ids]
  kEmbedPositions,  // out = table[positions]
  kCopy,            // out = in[0]
  kAdd,             // out = in[0] + in[1]
  kMul,             // out = in[0] * in[1]
  kSiluMul,         // out = silu(in[0]) * in[1]
  kGeluTanh,        // out = gelu(in[0])
  kGeluExact,
  kRmsNorm,  // out = norm(in[0]) for each of `heads` slices of a row
  kLayerNorm,
  kRope,          // out = rotate(in[0]), `heads` slices
  kPairRope,      // out = in[0] with adjacent dimensions rotated by the angles of `pairs`
  kProjectHeads,  // out = each of `heads` slices of in[0] times the matrix of its group, + bias
  kLinear,        // out = in[0] W^T + bias
  kAttention,     // out = attention of queries in[0], keys in[1], values in[2] over the cache
};

// The name of data that a step reads.
struct DataId {
  enum class Home : uint8_t {
    kNone,      // nothing is read
    kTensor,    // the graph's initializer of the name Plan::tensors[index]
    kConstant,  // Plan::constants[index]
  };
  Home home = Home::kNone;
  int64_t index = -1;

  explicit operator bool() const { return home != Home::kNone; }
  friend bool operator==(const DataId&, const DataId&) = default;
};

// A weight [out, in], whose rows are those of tensors that follow each other in the model's memory.
struct LinearWeight {
  std::vector<DataId> tensors;
  int64_t out = 0;
  int64_t in = 0;
};

// Rebuild of a layer's keys from latents (kernels/attention.h, KeyRebuild).
struct RebuildStep {
  DataId matrix;       // [G * D, R]; of a group's rows its first key_rank columns
  DataId bias;         // [G * D] or none
  DataId norm_weight;  // [D] or none
  float norm_epsilon = 0.0F;
  DataId cos, sin;  // [positions, r/2] of the first r dimensions; none: no rotation
};

// Columns offset .. offset + width of a workspace slot [rows, slot width].
struct Operand {
  int64_t slot = -1;
  int64_t offset = 0;
  int64_t width = 0;

  friend bool operator==(const Operand&, const Operand&) = default;
};

// The slots that are not workspace: the activation between sections, and the caller's logits.
inline constexpr int64_t kHiddenSlot = 0;
inline constexpr int64_t kLogitsSlot = 1;

struct AttentionStep {
  int64_t layer = 0;
  int64_t num_heads = 0;           // H
  int64_t num_kv_heads = 0;        // G
  int64_t stored_width = 0;        // R: columns of a group in in[1]; true widths in key_ranks
  std::vector<int64_t> key_ranks;  // [n]
  float scale = 0.0F;
  int64_t window = 0;  // tokens that a query sees, its own among them; 0: all before it
  bool latent = false;
  int64_t head_width = 0;  // D: columns of a kv head in in[2]
  RebuildStep rebuild;     // latent only
};

struct Step {
  StepKind kind = StepKind::kCopy;
  std::string node;  // for messages
  std::vector<Operand> in;
  Operand out;
  int64_t linear = -1;  // kLinear: index into Plan::linears
  DataId table;         // kEmbed*: [entries, width], of any float type
  DataId weight;        // norms: [width of a slice]
  DataId bias;          // norms, kLinear and kProjectHeads, or none
  float epsilon = 0.0F;
  int64_t heads = 1;
  DataId cos, sin;             // kRope: [positions, r/2] of the first r dimensions; kPairRope: D/2
  std::vector<int64_t> pairs;  // kPairRope: [width/2] of 0..D/2-1
  int64_t groups = 1;          // kProjectHeads
  DataId columns;              // kProjectHeads: [groups*D, R]
  int64_t attention = -1;      // kAttention: index into Plan::attentions
};

struct Plan {
  int64_t vocab_size = 0;
  int64_t model_width = 0;    // E
  int64_t max_positions = 0;  // positions in the rotation or position tables
  // Where the rotation depends on the length (longrope): the longest sequence whose tokens are
  // turned by row `position` of the tables; those of longer ones, by row position + short_context.
  // 0: all are turned by row `position`.
  int64_t short_context = 0;
  std::vector<std::vector<Step>> sections;  // [1 + L + 1]
  std::vector<int64_t> slot_widths;         // floats in a row of each slot; 0 for kLogitsSlot
  std::vector<LinearWeight> linears;
  std::vector<AttentionStep> attentions;      // [L], by layer
  std::vector<std::string> tensors;           // of the graph, that steps read
  std::vector<std::vector<float>> constants;  // fused biases, transposed small matrices
};

// Makes the plan of a graph. Throws kUnsupported naming the node of an operator or a wiring that
// the plan cannot hold, kBadInput for a graph that contradicts itself.
[[nodiscard]] Plan PlanGraph(const Graph& graph);

// Returns the first tensor of a weight, at whose data all its [out, in] elements lie. Throws
// kInternal where its tensors do not follow each other in the model's memory.
[[nodiscard]] const Tensor& FirstTensorOf(const Graph& graph,
                                          const Plan& plan,
                                          const LinearWeight& weight);

// How a layer turns its queries: the first 2 * |frequencies| dimensions of a head, by position *
// frequency, and times `factor`.
struct LayerRotation {
  std::span<const double> frequencies;  // [r/2]; empty: no rotation
  double factor = 1.0;
  int64_t first_row = 0;  // the row of position 0 in the plan's tables
};

// Returns the row of the tables for a token that is computed when the sequence has `length` tokens.
[[nodiscard]] int64_t RotationRow(const Plan& plan, int64_t position, int64_t length);

// Returns the attention step of each layer [L].
[[nodiscard]] std::vector<const Step*> AttentionStepsOf(const Plan& plan);
// Returns the index of a section's attention; the number of its steps where it has none.
[[nodiscard]] size_t AttentionIndex(std::span<const Step> section);

// Return what an id names, in the host's memory, borrowed from graph and plan. Throw kInternal for
// an id that names nothing there, or no float data.
[[nodiscard]] const Tensor& TensorOf(const Graph& graph, const Plan& plan, DataId id);
[[nodiscard]] std::span<const float> FloatsOf(const Graph& graph, const Plan& plan, DataId id);

}  // namespace kvc::runtime
