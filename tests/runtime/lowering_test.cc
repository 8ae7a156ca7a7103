// Lowering of nodes to steps: what is folded, and what is refused by name.

#include "runtime/plan/lowering.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "runtime/load/onnx_loader.h"
#include "tests/runtime/loaded.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

class LoweringTest : public ::testing::Test {
 protected:
  explicit LoweringTest(const char* model = "llama") {
    testing::WriteBundle(testing::GoldenModel(model), directory_.path());
    model_ = LoadOnnx(directory_ / "model.onnx");
  }
  [[nodiscard]] Graph& graph() { return model_.graph; }
  static int64_t Count(const LoweredGraph& lowered, StepKind kind) {
    return std::ranges::count_if(lowered.steps,
                                 [&](const LoweredStep& step) { return step.step.kind == kind; });
  }

 private:
  testing::TempDir directory_;
  Model model_;
};

class LoweringWithBiases : public LoweringTest {
 protected:
  LoweringWithBiases() : LoweringTest("gpt2") {}
};

TEST_F(LoweringTest, SigmoidAndProductsAreOneStep) {
  const LoweredGraph lowered = Lower(graph());
  const auto layers = std::ssize(lowered.plan.attentions);
  ASSERT_GT(layers, 0);
  EXPECT_EQ(Count(lowered, StepKind::kAttention), layers);
  EXPECT_EQ(Count(lowered, StepKind::kSiluMul), layers);
  EXPECT_EQ(Count(lowered, StepKind::kAdd), 2 * layers);  // the residuals
  EXPECT_EQ(Count(lowered, StepKind::kLinear), 7 * layers + 1);
}

TEST_F(LoweringWithBiases, BelongToTheProducts) {
  const LoweredGraph lowered = Lower(graph());
  const auto layers = std::ssize(lowered.plan.attentions);
  ASSERT_GT(layers, 0);
  EXPECT_EQ(Count(lowered, StepKind::kAdd), 2 * layers + 1);  // residuals, and the positions'
  for (const LoweredStep& step : lowered.steps) {
    if (step.step.kind != StepKind::kLinear || step.out == lowered.logits) continue;
    EXPECT_TRUE(step.step.bias) << step.step.node;
  }
}

TEST_F(LoweringTest, RefusesAnOperatorByNodeAndName) {
  Node& node = *std::ranges::find_if(graph().nodes, [](const Node& n) { return n.op == "MatMul"; });
  node.op = "Conv";
  EXPECT_KVC_ERROR((void)Lower(graph()), kUnsupported, node.name);
  EXPECT_KVC_ERROR((void)Lower(graph()), kUnsupported, "got Conv");
}

TEST_F(LoweringTest, RefusesAnotherOpset) {
  graph().opsets[""] = 22;
  EXPECT_KVC_ERROR((void)Lower(graph()), kUnsupported, "expected opset 23 or 24, got 22");
}

TEST_F(LoweringTest, RefusesAGraphWithoutAttention) {
  Graph empty;
  empty.opsets = graph().opsets;
  EXPECT_KVC_ERROR((void)Lower(empty), kUnsupported, "com.kvc.CompressedAttention, got none");
}

}  // namespace
}  // namespace kvc::runtime
