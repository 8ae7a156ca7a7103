// Memory, streams, events and graphs: what holds on the emulated device and on a real one.

#include "kernels/cuda/runtime.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/device_test_kernels.h"
#include "tests/support/expect_error.h"

namespace kvc::cuda {
namespace {

TEST(RuntimeTest, AGraphReplaysWhatWasCapturedWithItsArguments) {
  const DeviceArray<int> x(std::vector<int>{1});
  Stream stream;
  int add = 3;
  stream.BeginCapture();
  RunStep(x.data(), add, stream.handle());
  RunStep(x.data(), 1, stream.handle());
  add = 100;  // not the graph's
  const Graph graph = stream.EndCapture();
  EXPECT_EQ(x.Host()[0], 1) << "capturing runs nothing";
  int expected = 1;
  for (int replay = 0; replay < 3; ++replay) {
    graph.Replay(stream.handle());
    Synchronize(stream.handle());
    expected = 2 * (2 * expected + 3) + 1;
    EXPECT_EQ(x.Host()[0], expected);
  }
}

TEST(RuntimeTest, AnEventOrdersTwoStreams) {
  const DeviceArray<int> x(std::vector<int>{1});
  Stream first;
  Stream second;
  Event event;
  RunStep(x.data(), 1, first.handle());  // 3
  RunStep(x.data(), 2, first.handle());  // 8
  event.Record(first.handle());
  event.MakeWait(second.handle());
  RunStep(x.data(), 5, second.handle());  // 21
  Synchronize(second.handle());
  EXPECT_EQ(x.Host()[0], 21);
}

TEST(RuntimeTest, EventsMeasureWhatLiesBetweenThem) {
  const DeviceArray<int> x(std::vector<int>{1});
  Stream stream;
  Event begin, middle, end;
  begin.Record(stream.handle());
  RunStep(x.data(), 1, stream.handle());
  middle.Record(stream.handle());
  for (int i = 0; i < 20; ++i) RunStep(x.data(), 1, stream.handle());
  end.Record(stream.handle());
  Synchronize(stream.handle());
  const double first = begin.SecondsUntil(middle);
  const double rest = middle.SecondsUntil(end);
  EXPECT_GT(first, 0.0);
  EXPECT_GT(rest, 0.0);
  EXPECT_NEAR(begin.SecondsUntil(end), first + rest, 1e-6 + 0.01 * (first + rest));
}

TEST(RuntimeTest, AnEventThatWasNeverSetMeasuresNothing) {
  Stream stream;
  Event begin, end;
  begin.Record(stream.handle());
  Synchronize(stream.handle());
  EXPECT_KVC_ERROR((void)begin.SecondsUntil(end), kInternal, "event");
}

TEST(RuntimeTest, CopiesAndFillsFollowTheirStream) {
  const std::vector<int> values = {5, 6, 7, 8};
  const DeviceArray<int> from(values);
  const DeviceArray<int> to(4);
  Stream stream;
  FillZero(to.data(), 4 * sizeof(int), stream.handle());
  CopyOnDevice(to.data() + 1, from.data(), 2 * sizeof(int), stream.handle());
  std::vector<int> host(4, -1);
  CopyToHost(host.data(), to.data(), 4 * sizeof(int), stream.handle());
  Synchronize(stream.handle());
  EXPECT_EQ(host, (std::vector<int>{0, 5, 6, 0}));
}

TEST(RuntimeTest, MemoryFollowsTheStream) {
  const size_t before = UsedBytes();
  Stream stream;
  void* taken = TakeBytes(64, stream.handle());
  EXPECT_GE(UsedBytes(), before + 64);
  FillZero(taken, 64, stream.handle());  // runs before the memory goes
  GiveBackBytes(taken, 64, stream.handle());
  Synchronize(stream.handle());
  EXPECT_EQ(UsedBytes(), before);
}

// Nobody needs to wait for the stream before memory that was given back serves again.
TEST(RuntimeTest, MemoryThatWasGivenBackRaisesNoPeak) {
  Stream stream;
  ResetPeakBytes();
  const size_t before = UsedBytes();
  for (int repeat = 0; repeat < 5; ++repeat) {
    void* taken = TakeBytes(1 << 16, stream.handle());
    FillZero(taken, 1 << 16, stream.handle());
    GiveBackBytes(taken, 1 << 16, stream.handle());
  }
  EXPECT_EQ(PeakBytes(), before + (1 << 16));
  Synchronize(stream.handle());
  EXPECT_EQ(UsedBytes(), before);
}

TEST(RuntimeTest, MemoryIsCounted) {
  const size_t before = UsedBytes();
  ResetPeakBytes();
  {
    const DeviceBuffer buffer(1 << 20);
    EXPECT_EQ(UsedBytes(), before + (1 << 20));
    DeviceBuffer moved(1 << 10);
    moved = DeviceBuffer(1 << 12);
    EXPECT_EQ(UsedBytes(), before + (1 << 20) + (1 << 12));
  }
  EXPECT_EQ(UsedBytes(), before);
  EXPECT_EQ(PeakBytes(), before + (1 << 20) + (1 << 12) + (1 << 10));
}

}  // namespace
}  // namespace kvc::cuda
