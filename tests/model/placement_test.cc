#include "model/placement.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/support/expect_error.h"

namespace kvc::model {
namespace {

TEST(Compute, TheCpuIsFloat32) {
  const Compute compute = ChooseCompute("cpu", "auto");
  EXPECT_FALSE(compute.cuda);
  EXPECT_EQ(compute.precision, Precision::kF32);
  EXPECT_EQ(DeviceOf(compute), torch::Device(torch::kCPU));
  EXPECT_KVC_ERROR((void)ChooseCompute("cpu", "bf16"), kUsage, "--precision: expected f32");
}

TEST(Compute, MissingCudaIsNamed) {
  if (ChooseCompute("auto", "auto").cuda) GTEST_SKIP() << "LibTorch sees a CUDA device";
  EXPECT_KVC_ERROR((void)ChooseCompute("cuda", "auto"), kDevice, "use --device cpu");
}

TEST(Compute, ADeviceThatFailsIsNotAnInternalError) {
  const auto fails = [] {
    TORCH_CHECK(false, "CUDA out of memory. Tried to allocate 2 GiB.\nmore");
  };
  EXPECT_KVC_ERROR(RunOn({true}, fails), kDevice, "Tried to allocate 2 GiB.\"; use a smaller");
  EXPECT_THROW(RunOn({}, fails), c10::Error);
  const auto stops = [] { KVC_THROW(kInterrupted, "stopped"); };
  EXPECT_KVC_ERROR(RunOn({true}, stops), kInterrupted, "stopped");
}

TEST(Placement, KeepsWhatIsTiedAndWhatIsNotThere) {
  OuterWeights outer;
  outer.lm_head = torch::ones({3, 2});
  outer.embedding = outer.lm_head;
  const OuterWeights placed = PlaceOn(outer, torch::Device(torch::kMeta));
  EXPECT_TRUE(placed.lm_head.is_meta());
  EXPECT_TRUE(placed.embedding.is_same(placed.lm_head));
  EXPECT_FALSE(placed.final_norm_bias.defined());
  LayerWeights layer;
  layer.q = torch::ones({2, 2});
  const LayerWeights there = PlaceOn(layer, torch::Device(torch::kCPU));
  EXPECT_TRUE(there.q.is_same(layer.q));  // no copy of what is there already
  EXPECT_FALSE(there.k_rebuild.defined());
}

}  // namespace
}  // namespace kvc::model
