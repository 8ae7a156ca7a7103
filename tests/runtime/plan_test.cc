// Lowering and scheduling of what the exporter writes, in every layout.

#include "runtime/plan/plan.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "runtime/load/onnx_loader.h"
#include "runtime/plan/lowering.h"
#include "runtime/plan/schedule.h"
#include "tests/runtime/loaded.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

class EveryLayoutPlan : public ::testing::TestWithParam<const char*> {
 protected:
  EveryLayoutPlan() {
    testing::WriteBundle(testing::GoldenModel(GetParam()), directory_.path());
    model_ = LoadOnnx(directory_ / "model.onnx");
  }
  testing::TempDir directory_;
  Model model_;
};
INSTANTIATE_TEST_SUITE_P(Models,
                         EveryLayoutPlan,
                         ::testing::ValuesIn(Layouts()),
                         testing::ParameterName());

// What each column of each slot holds while a plan's steps run: the register it belongs to.
class SlotContents {
 public:
  explicit SlotContents(const std::vector<int64_t>& widths) {
    for (const int64_t width : widths) slots_.emplace_back(static_cast<size_t>(width), -1);
  }
  void Write(const Operand& place, int64_t reg) {
    if (place.slot == kLogitsSlot) return;
    for (int64_t c = 0; c < place.width; ++c) slots_[place.slot].at(place.offset + c) = reg;
  }
  [[nodiscard]] bool Holds(const Operand& place, int64_t reg) const {
    const auto& slot = slots_[place.slot];
    return std::all_of(slot.begin() + place.offset, slot.begin() + place.offset + place.width,
                       [&](int64_t held) { return held == reg; });
  }
  // Columns are written as a whole by fused products and read in parts.
  void WriteParts(const LoweredGraph& lowered, const Operand& place, int64_t reg) {
    Write(place, reg);
    for (size_t part = 0; part < lowered.registers.size(); ++part) {
      const Register& info = lowered.registers[part];
      if (info.parent == reg) {
        Write({place.slot, place.offset + info.offset, info.width}, static_cast<int64_t>(part));
      }
    }
  }

 private:
  std::vector<std::vector<int64_t>> slots_;
};

// Every step finds in its slots what the steps that it depends on have written there.
TEST_P(EveryLayoutPlan, NoSlotIsOverwrittenTooEarly) {
  LoweredGraph lowered = Lower(model_.graph);
  FuseLinears(model_.graph, lowered);
  const Plan plan = Schedule(lowered);
  SlotContents contents(plan.slot_widths);
  size_t next = 0;
  for (const auto& section : plan.sections) {
    for (const Step& step : section) {
      if (step.kind == StepKind::kCopy) {  // put in by the schedule
        ASSERT_EQ(step.out.slot, kHiddenSlot);
        const int64_t reg = lowered.steps[next - 1].out;
        ASSERT_TRUE(contents.Holds(step.in[0], reg)) << step.node;
        contents.Write(step.out, reg);
        continue;
      }
      const LoweredStep& expected = lowered.steps.at(next++);
      ASSERT_EQ(step.node, expected.step.node);
      ASSERT_EQ(step.in.size(), expected.in.size());
      for (size_t i = 0; i < step.in.size(); ++i) {
        EXPECT_TRUE(contents.Holds(step.in[i], expected.in[i])) << step.node << " input " << i;
      }
      contents.WriteParts(lowered, step.out, expected.out);
    }
  }
  EXPECT_EQ(next, lowered.steps.size());
}

TEST_P(EveryLayoutPlan, NamesDataThatIsThere) {
  const Plan plan = PlanGraph(model_.graph);
  ASSERT_EQ(plan.sections.size(), plan.attentions.size() + 2);
  const auto elements = [&](DataId id) { return std::ssize(FloatsOf(model_.graph, plan, id)); };
  for (const auto& section : plan.sections) {
    for (const Step& step : section) {
      if (step.weight) {
        EXPECT_EQ(elements(step.weight), step.out.width / step.heads) << step.node;
      }
      if (step.bias && step.kind == StepKind::kLinear) {
        EXPECT_EQ(elements(step.bias), step.out.width) << step.node;
      }
      if (step.cos) {
        EXPECT_EQ(elements(step.cos), elements(step.sin)) << step.node;
      }
      if (step.table) {
        EXPECT_EQ(TensorOf(model_.graph, plan, step.table).dims[1], step.out.width);
      }
      if (step.kind != StepKind::kLinear) continue;
      int64_t rows = 0;
      for (const DataId id : plan.linears[step.linear].tensors) {
        rows += TensorOf(model_.graph, plan, id).dims[0];
      }
      EXPECT_EQ(rows, plan.linears[step.linear].out) << step.node;
      EXPECT_EQ(rows, step.out.width) << step.node;
    }
  }
  for (const AttentionStep& step : plan.attentions) {
    EXPECT_EQ(static_cast<bool>(step.rebuild.matrix), step.latent);
  }
}

// One attention cuts each layer's section, so that the part before it and the part behind it exist.
TEST_P(EveryLayoutPlan, EachLayerHasOneAttention) {
  const Plan plan = PlanGraph(model_.graph);
  for (size_t s = 0; s < plan.sections.size(); ++s) {
    const auto count = std::ranges::count_if(
        plan.sections[s], [](const Step& step) { return step.kind == StepKind::kAttention; });
    EXPECT_EQ(count, s == 0 || s + 1 == plan.sections.size() ? 0 : 1) << "section " << s;
  }
}

// Two products of one input whose weights lie one behind the other; only the second has a bias.
TEST(FuseLinears, BiasesStandInARow) {
  const std::vector<float> memory(3 * 2 + 2 * 2, 1.0F);
  const std::vector<float> bias = {5.0F, 7.0F};
  Graph graph;
  const auto add = [&](const std::string& name, const float* data, std::vector<int64_t> dims,
                       int64_t elements) {
    graph.initializers[name] = {name, DType::kF32, std::move(dims),
                                reinterpret_cast<const std::byte*>(data), elements};
  };
  add("one", memory.data(), {3, 2}, 6);
  add("two", memory.data() + 6, {2, 2}, 4);
  add("bias", bias.data(), {2}, 2);
  LoweredGraph lowered;
  lowered.registers = {{2, -1, 0}, {3, -1, 0}, {2, -1, 0}};
  lowered.plan.tensors = {"one", "two", "bias"};
  const auto id = [](int64_t index) { return DataId{DataId::Home::kTensor, index}; };
  lowered.plan.linears = {{{id(0)}, 3, 2}, {{id(1)}, 2, 2}};
  for (int64_t i = 0; i < 2; ++i) {
    LoweredStep& step = lowered.steps.emplace_back();
    step.step.kind = StepKind::kLinear;
    step.step.linear = i;
    step.in = {0};
    step.out = 1 + i;
  }
  lowered.steps[1].step.bias = id(2);
  FuseLinears(graph, lowered);
  ASSERT_EQ(lowered.steps.size(), 1U);
  ASSERT_EQ(lowered.plan.linears.size(), 1U);
  EXPECT_EQ(lowered.plan.linears[0].tensors, (std::vector<DataId>{id(0), id(1)}));
  EXPECT_EQ(lowered.plan.linears[0].out, 5);
  const auto all = FloatsOf(graph, lowered.plan, lowered.steps[0].step.bias);
  const std::vector<float> expected = {0.0F, 0.0F, 0.0F, 5.0F, 7.0F};
  EXPECT_TRUE(std::ranges::equal(all, expected));
  EXPECT_EQ(lowered.registers[2].parent, 3);
  EXPECT_EQ(lowered.registers[2].offset, 3);
}

TEST(Plan, AnIdThatNamesNothingIsADefect) {
  const Plan plan;
  const Graph graph;
  EXPECT_KVC_ERROR((void)TensorOf(graph, plan, {}), kInternal, "the id of a tensor");
  EXPECT_KVC_ERROR((void)FloatsOf(graph, plan, {DataId::Home::kTensor, 3}), kInternal, "plan");
}

}  // namespace
}  // namespace kvc::runtime
