#pragma once
// What the runtime executes: the steps of a decoder over rows of tokens, cut into sections between
// which exactly one activation [T, E] is live. Section 0 makes it from token ids, one section for
// each layer carries it on, the last one turns it into logits. Because of the cuts a prompt can go
// through one layer completely before the next one starts.
//
// Pointers borrow from the Model, which must outlive the plan.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "runtime/load/graph.h"

namespace kvc::runtime {

enum class StepKind {
  kEmbedTokens,     // out = table[ids]
  kEmbedPositions,  // out = table[positions]
  kCopy,            // out = in[0]
  kAdd,             // out = in[0] + in[1]
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
  bool latent = false;
  std::vector<kernels::KeyRebuild> rebuild;  // [G]; latent only
};

struct Step {
  StepKind kind = StepKind::kCopy;
  std::string node;  // for messages
  std::vector<Operand> in;
  Operand out;
  int64_t linear = -1;            // kLinear: index into Plan::linears
  const Tensor* table = nullptr;  // kEmbed*: [entries, width]
  const float* weight = nullptr;  // norms
  const float* bias = nullptr;    // norms, kLinear and kProjectHeads, or null
  float epsilon = 0.0F;
  int64_t heads = 1;
  ConstMatrixF cos, sin;           // kRope, kPairRope: [positions, D/2]
  std::span<const int64_t> pairs;  // kPairRope: [width/2] of 0..D/2-1
  int64_t groups = 1;              // kProjectHeads
  ConstMatrixF columns;            // kProjectHeads: [groups*D, R]
  int64_t attention = -1;          // kAttention: index into Plan::attentions
};

struct Plan {
  int64_t vocab_size = 0;
  int64_t model_width = 0;                  // E
  int64_t max_positions = 0;                // rows of the rotation or position tables
  std::vector<std::vector<Step>> sections;  // [1 + L + 1]
  std::vector<int64_t> slot_widths;         // floats in a row of each slot; 0 for kLogitsSlot
  std::vector<kernels::WeightView> linears;
  std::vector<AttentionStep> attentions;            // [L], by layer
  std::vector<std::unique_ptr<float[]>> constants;  // fused biases, transposed small matrices
};

// Lowers a graph. Throws kUnsupported naming the node of an operator or a wiring that the plan
// cannot hold, kBadInput for a graph that contradicts itself.
[[nodiscard]] Plan MakePlan(const Graph& graph);

}  // namespace kvc::runtime
