// Cuts and slots of plans small enough to be scheduled by hand.

#include "runtime/plan/schedule.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

constexpr int64_t kModelWidth = 4;
constexpr int64_t kFusedWidth = 12;

void Add(
    LoweredGraph& lowered, StepKind kind, std::string node, std::vector<int64_t> in, int64_t out) {
  LoweredStep step;
  step.step.kind = kind;
  step.step.node = std::move(node);
  step.in = std::move(in);
  step.out = out;
  lowered.steps.push_back(std::move(step));
}

// A layer without a network: 0 = embedding, 1 = norm(0), 2 = its products, of which 3, 4 and 5 are
// the query, key and value, 6 = attention, 7 = 0 + 6, 8 = norm(7), 9 = logits.
LoweredGraph OneLayer() {
  LoweredGraph lowered;
  lowered.registers = {
      {kModelWidth},       {kModelWidth}, {kFusedWidth}, {kModelWidth, 2, 0}, {kModelWidth, 2, 4},
      {kModelWidth, 2, 8}, {kModelWidth}, {kModelWidth}, {kModelWidth},       {10}};
  lowered.logits = 9;
  Add(lowered, StepKind::kEmbedTokens, "embed", {}, 0);
  Add(lowered, StepKind::kRmsNorm, "norm", {0}, 1);
  Add(lowered, StepKind::kLinear, "qkv", {1}, 2);
  Add(lowered, StepKind::kAttention, "attention", {3, 4, 5}, 6);
  Add(lowered, StepKind::kAdd, "residual", {0, 6}, 7);
  Add(lowered, StepKind::kRmsNorm, "last norm", {7}, 8);
  Add(lowered, StepKind::kLinear, "logits", {8}, 9);
  return lowered;
}

TEST(Schedule, CutsWhereOneActivationIsLive) {
  const Plan plan = Schedule(OneLayer());
  ASSERT_EQ(plan.sections.size(), 3u);
  EXPECT_EQ(plan.sections[0].size(), 1u);  // the embedding
  EXPECT_EQ(plan.sections[1].size(), 4u);  // to the residual, which nothing but the norm reads
  EXPECT_EQ(plan.sections[2].size(), 2u);
  EXPECT_EQ(plan.model_width, kModelWidth);
}

TEST(Schedule, SlotsAreUsedAgain) {
  const Plan plan = Schedule(OneLayer());
  EXPECT_EQ(plan.slot_widths, (std::vector<int64_t>{kModelWidth, 0, kModelWidth, kFusedWidth}));
  const Operand hidden{kHiddenSlot, 0, kModelWidth};
  const auto& layer = plan.sections[1];
  // The residual still needs the hidden activation: the norm may not write over it.
  EXPECT_EQ(layer[0].in[0], hidden);
  EXPECT_EQ(layer[0].out, (Operand{2, 0, kModelWidth}));
  EXPECT_EQ(layer[1].out, (Operand{3, 0, kFusedWidth}));
  // Parts of a product lie in its columns; the attention's output takes the norm's slot.
  EXPECT_EQ(layer[2].in[1], (Operand{3, 4, kModelWidth}));
  EXPECT_EQ(layer[2].in[2], (Operand{3, 8, kModelWidth}));
  EXPECT_EQ(layer[2].out, (Operand{2, 0, kModelWidth}));
  // The last reader of the hidden activation writes where it reads.
  EXPECT_EQ(layer[3].out, hidden);
  EXPECT_EQ(plan.sections[2][0].out, hidden);
  EXPECT_EQ(plan.sections[2][1].out, (Operand{kLogitsSlot, 0, 10}));
}

TEST(Schedule, RefusesTwoLiveActivationsBeforeALayer) {
  LoweredGraph lowered = OneLayer();
  // Reads the embedding behind the first attention, whose output it reads too.
  lowered.steps[4].step.kind = StepKind::kAttention;
  lowered.steps[4].step.node = "second attention";
  EXPECT_KVC_ERROR((void)Schedule(std::move(lowered)), kUnsupported,
                   "node \"second attention\": expected one activation to be live before it");
}

TEST(Schedule, RefusesAnActivationOfAnotherWidth) {
  LoweredGraph lowered = OneLayer();
  lowered.registers[7].width = kModelWidth + 1;
  EXPECT_KVC_ERROR((void)Schedule(std::move(lowered)), kUnsupported,
                   "node \"residual\": expected activations between layers to be 4 wide, got 5");
}

}  // namespace
}  // namespace kvc::runtime
