// The checker's reports of kernels with a fault, its silence about the same kernels without it, and
// its counters.

#include "kernels/emulator/checker.h"

#include <map>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "kernels/cuda/move_rows.h"
#include "kernels/emulator/emulator.h"
#include "kernels/emulator/traffic.h"
#include "tests/cuda/cached_plane.h"
#include "tests/cuda/checker_test_kernels.h"
#include "tests/cuda/decode_case.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/prefill_case.h"

namespace kvc::cuda {
namespace {

std::string ReportOf(const FaultyKernel& kernel) {
  const DeviceArray<float> data(std::vector<float>(512, 0.0F));
  try {
    kernel.run(data.data(), nullptr);
    Synchronize(nullptr);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kDevice);
    return error.what();
  }
  return "";
}

int CountOf(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

class CheckerTest : public testing::Test {
 protected:
  ~CheckerTest() override { emulator::SetOptions({}); }
};

TEST_F(CheckerTest, HooksAreLinked) { EXPECT_TRUE(emulator::HooksLinked()); }

TEST_F(CheckerTest, EveryFaultIsReportedWithItsLines) {
  for (const FaultyKernel& kernel : FaultyKernels()) {
    const std::string report = ReportOf(kernel);
    if (kernel.report.empty()) {
      EXPECT_EQ(report, "") << kernel.name;
      continue;
    }
    EXPECT_NE(report.find(kernel.report), std::string::npos) << kernel.name << ": " << report;
    EXPECT_GE(CountOf(report, "checker_test_kernels.cu:"), kernel.lines)
        << kernel.name << ": " << report;
  }
}

// The kind of report may depend on who comes first; that there is one must not.
TEST_F(CheckerTest, EveryFaultIsReportedInAnyOrder) {
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    emulator::Options options;
    options.seed = seed;
    emulator::SetOptions(options);
    for (const FaultyKernel& kernel : FaultyKernels()) {
      const std::string report = ReportOf(kernel);
      EXPECT_EQ(report.empty(), kernel.report.empty()) << kernel.name << " " << seed << report;
    }
  }
}

TEST_F(CheckerTest, BothLinesOfARaceAreTheRightOnes) {
  const DeviceArray<float> data(std::vector<float>(64, 0.0F));
  const Lines lines = RunKnownRace(data.data(), nullptr);
  try {
    Synchronize(nullptr);
    FAIL() << "expected a report";
  } catch (const Error& error) {
    const std::string report = error.what();
    EXPECT_NE(report.find(fmt::format("at checker_test_kernels.cu:{} and at "
                                      "checker_test_kernels.cu:{}",
                                      lines.read, lines.write)),
              std::string::npos)
        << report;
    EXPECT_NE(report.find("KnownRaceKernel: block 0: thread 50: "), std::string::npos) << report;
  }
}

TEST_F(CheckerTest, GlobalMemoryThatNobodyWroteIsReported) {
  const DeviceArray<float> from(32);
  const DeviceArray<float> to(32);
  RunStrided(from.data(), to.data(), 1, nullptr);
  EXPECT_THROW(Synchronize(nullptr), Error);
  FillZero(from.data(), 31 * sizeof(float), nullptr);
  RunStrided(from.data(), to.data(), 1, nullptr);
  EXPECT_THROW(Synchronize(nullptr), Error);
  FillZero(from.data(), 32 * sizeof(float), nullptr);
  RunStrided(from.data(), to.data(), 1, nullptr);
  EXPECT_NO_THROW(Synchronize(nullptr));
}

TEST_F(CheckerTest, MemoryThatWasFreedIsReported) {
  float* freed = nullptr;
  {
    const DeviceArray<float> from(std::vector<float>(32, 0.0F));
    freed = from.data();
  }
  const DeviceArray<float> to(32);
  RunStrided(freed, to.data(), 1, nullptr);
  EXPECT_THROW(Synchronize(nullptr), Error);
}

emulator::Traffic TrafficOf(int line) {
  for (const emulator::LineTraffic& entry : emulator::GetLineTraffic()) {
    if (entry.line == fmt::format("checker_test_kernels.cu:{}", line)) {
      return entry.traffic;
    }
  }
  ADD_FAILURE() << "no traffic at line " << line;
  return {};
}

// 32 lanes, 4 bytes each, `stride` words apart: sectors of 8 words, 32 banks.
TEST_F(CheckerTest, SectorsAndBankConflictsAreCountedByLine) {
  emulator::Options options;
  options.count = true;
  emulator::SetOptions(options);
  struct Case {
    int stride;
    uint64_t sectors, passes;
  };
  for (const auto& [stride, sectors, passes] :
       std::vector<Case>{{1, 4, 1}, {2, 8, 2}, {4, 16, 4}, {8, 32, 8}, {31, 32, 1}, {0, 1, 1}}) {
    const DeviceArray<float> from(std::vector<float>(1024, 0.0F));
    const DeviceArray<float> to(32);
    emulator::ResetTraffic();
    RunStrided(from.data(), to.data(), stride, nullptr);
    Synchronize(nullptr);
    const Lines lines = StridedLines();
    EXPECT_EQ(TrafficOf(lines.write).sectors, sectors) << stride;
    EXPECT_EQ(TrafficOf(lines.write).used_bytes, 128U);
    EXPECT_EQ(TrafficOf(lines.read).passes, passes) << stride;
    EXPECT_EQ(emulator::GetDistinctSectors(), sectors + 4) << stride;
  }
}

// From 1 MB of keys and values on, at least 95 % of the sectors that a step touches are used, and
// tiles are read without bank conflicts.
TEST_F(CheckerTest, DecodeAttentionReadsOnlyWhatItNeeds) {
  emulator::Options options;
  options.count = true;
  options.check = false;
  Rng rng(3);
  const std::vector<std::vector<SegmentSize>> heads = {
      {{500, 64, 64}, {900, 32, 32}, {1801, 16, 16}, {163, 64, 64}},
      {{3500, 64, 64}},
      {{777, 40, 24}}};
  DecodeCase decode({"", 4, 16, heads}, DType::kBF16, rng);
  ASSERT_GE(decode.Bytes(), 1 << 20);
  emulator::SetOptions(options);
  emulator::ResetTraffic();
  const auto outputs = decode.Run();
  EXPECT_LE(decode.WorstError(outputs), 1.0);
  const double used = static_cast<double>(decode.Bytes());
  EXPECT_GE(used / (32.0 * static_cast<double>(emulator::GetDistinctSectors())), 0.95);
  // The line of the copies, which is inlined several times, asks for more than any other.
  std::map<std::string, emulator::Traffic> lines;
  emulator::Traffic copies;
  for (const emulator::LineTraffic& entry : emulator::GetLineTraffic()) {
    emulator::Traffic& line = lines[entry.line.substr(0, entry.line.find(' '))];
    line.sectors += entry.traffic.sectors;
    line.used_bytes += entry.traffic.used_bytes;
    if (line.sectors > copies.sectors) {
      copies = line;
    }
  }
  EXPECT_EQ(copies.used_bytes, static_cast<uint64_t>(decode.Bytes())) << "each row is copied once";
  const emulator::Traffic all = emulator::GetTraffic();
  EXPECT_LE(static_cast<double>(all.passes), 1.05 * static_cast<double>(all.least_passes));
}

// The same of codes with steps and of mixtures, whose rows are short. Codes are loaded by words
// that two lanes may share, so lines are not counted.
TEST_F(CheckerTest, DecodeAttentionReadsOnlyTheCodesItNeeds) {
  emulator::Options options;
  options.count = true;
  options.check = false;
  Rng rng(5);
  const std::vector<std::vector<SegmentSize>> heads = {
      {{5000, 64, 64, kRowsX4, kRowsX4}, {7001, 64, 64, kRowsX2, kRowsX2}},
      {{3000, 64, 64, kRowsX8, kRowsX8}, {5001, 64, 64, kRowsMany, kRowsFew}}};
  DecodeCase decode({"", 3, 16, heads}, kRowsX4, rng);
  ASSERT_GE(decode.Bytes(), 1 << 20);
  emulator::SetOptions(options);
  emulator::ResetTraffic();
  const auto outputs = decode.Run();
  EXPECT_LE(decode.WorstError(outputs), 1.0);
  const double used = static_cast<double>(decode.Bytes());
  EXPECT_GE(used / (32.0 * static_cast<double>(emulator::GetDistinctSectors())), 0.95);
}

// Rows are copied in whole sectors, and tiles, queries and weights are read without bank conflicts.
TEST_F(CheckerTest, PrefillAttentionReadsWholeSectorsWithoutConflicts) {
  emulator::Options options;
  options.count = true;
  options.check = false;
  emulator::SetOptions(options);
  Rng rng(4);
  for (const RowFormat& format : {kRowsBF16, kRowsF32}) {
    const PrefillCase prefill({"", 64, 0, 1, 0, {{64, 64}}}, format, format, rng);
    emulator::ResetTraffic();
    EXPECT_LE(prefill.WorstError(prefill.Run()), 1.0);
    uint64_t used = 0;
    for (const emulator::LineTraffic& entry : emulator::GetLineTraffic()) {
      if (entry.line.rfind("row_tile.cuh", 0) == 0) {
        EXPECT_EQ(entry.traffic.used_bytes, 32 * entry.traffic.sectors) << entry.line;
        used += entry.traffic.used_bytes;
      }
    }
    EXPECT_EQ(used, 64U * 2 * static_cast<uint64_t>(RowBytes(format, 64))) << "one copy of a row";
    const emulator::Traffic all = emulator::GetTraffic();
    EXPECT_LE(static_cast<double>(all.passes), 1.05 * static_cast<double>(all.least_passes));
  }
}

// What a launch adds for each row, beyond reading its table: every byte is loaded and stored once,
// in whole sectors.
TEST_F(CheckerTest, MovesCopyTheBytesThatAreKept) {
  emulator::Options options;
  options.count = true;
  emulator::SetOptions(options);
  Rng rng(4);
  for (const RowFormat& format : kAllRowFormats) {
    if (IsMixed(format)) continue;  // rows are no whole sectors
    const int64_t width = format == kRowsInt8 ? 124
                          : format == kRowsX2 ? 128
                                              : 64;  // whole sectors
    const CachedPlane source(format, 64, width, 0, 0, RandomFloats(rng, 64 * width));
    const CachedPlane target(format, 64, width, 0, 0, RandomFloats(rng, 64 * width));
    const auto traffic_of = [&](int32_t rows, bool in_place) {
      RowMove move;
      move.from = source.view();
      move.to = target.view();
      move.rows = rows;
      KeptRows kept;
      kept.plane = target.view();
      kept.first = 1;
      kept.rows = rows;
      const DeviceArray<RowMove> moves(std::vector<RowMove>{move});
      const DeviceArray<KeptRows> planes(std::vector<KeptRows>{kept});
      emulator::ResetTraffic();
      if (in_place) {
        KeepRows(planes.data(), 1, target.stride, nullptr);
      } else {
        MoveRows(moves.data(), 1, rows, nullptr);
      }
      Synchronize(nullptr);
      return emulator::GetTraffic();
    };
    for (const bool in_place : {false, true}) {
      const emulator::Traffic few = traffic_of(16, in_place);
      const emulator::Traffic many = traffic_of(48, in_place);
      const auto bytes = static_cast<uint64_t>(2 * 32 * target.stride);
      EXPECT_EQ(many.used_bytes - few.used_bytes, bytes) << RowFormatName(format);
      EXPECT_EQ(32 * (many.sectors - few.sectors), bytes) << RowFormatName(format);
    }
  }
}

}  // namespace
}  // namespace kvc::cuda
