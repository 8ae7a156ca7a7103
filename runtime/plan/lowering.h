#pragma once
// The first half of planning: lowers nodes to steps on registers. A register is an activation [T,
// width] that one step writes; schedule.h gives registers their places.

#include <cstdint>
#include <vector>

#include "runtime/plan/plan.h"

namespace kvc::runtime {

struct Register {
  int64_t width = 0;
  int64_t parent = -1;  // >= 0: columns offset .. offset + width of that register
  int64_t offset = 0;
};

// A step whose operands are registers; `step` holds everything else.
struct LoweredStep {
  Step step;
  std::vector<int64_t> in;
  int64_t out = -1;
};

struct LoweredGraph {
  std::vector<Register> registers;
  std::vector<LoweredStep> steps;  // in the order of the nodes
  int64_t logits = -1;             // register
  Plan plan;                       // all but sections and slots
};

// Lowers a graph. Folds casts and transpositions of weights, biases into products, and sigmoid and
// products into SiLU. Drops the mask's and the positions' arithmetic, because the cache knows its
// tokens. Throws like PlanGraph.
[[nodiscard]] LoweredGraph Lower(const Graph& graph);

// Merges products of the same input whose weights lie next to each other in memory: one pass over
// the input, one dispatch (query, key and value; gate and up). Results become columns of one
// register.
void FuseLinears(const Graph& graph, LoweredGraph& lowered);

}  // namespace kvc::runtime
