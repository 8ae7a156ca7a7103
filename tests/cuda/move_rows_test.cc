#include "kernels/cuda/move_rows.h"

#include <algorithm>
#include <deque>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/cached_plane.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {
namespace {

const std::vector<int64_t> kWidths = {1, 7, 13, 64, 128};
const std::vector<int64_t> kRowCounts = {0, 1, 5, 70};

// A table of moves with what it should do: each `Add` makes planes of its own.
class MoveTable {
 public:
  explicit MoveTable(Rng& rng) : rng_(rng) {}

  // Rows `rows` of a list, or (not `listed`) in a run, the target's first being to_first + held.
  void Add(const RowFormat& from,
           int64_t from_width,
           const RowFormat& to,
           int64_t to_width,
           int64_t rows,
           bool listed,
           int32_t held = -1) {
    const int64_t room = rows + 3;
    sources_.push_back(RandomPlane(rng_, from, room, from_width, NeedsSteps(to)));
    targets_.push_back(RandomPlane(rng_, to, room, to_width));
    targets_.back().Soil();
    RowMove& move = moves_.emplace_back();
    move.from = sources_.back().view();
    move.to = targets_.back().view();
    move.rows = static_cast<int32_t>(rows);
    move.from_first = static_cast<int32_t>(rng_.NextBelow(4));
    move.to_first = static_cast<int32_t>(held >= 0 ? 0 : rng_.NextBelow(4));
    if (held >= 0) {
      held_.emplace_back(std::vector<int32_t>{held});
      move.held = held_.back().data();
    }
    std::vector<int32_t> list(static_cast<size_t>(rows));
    std::iota(list.begin(), list.end(), move.from_first);
    if (listed) {
      for (int32_t& row : list) row = static_cast<int32_t>(rng_.NextBelow(room));
      lists_.emplace_back(list);
      move.from_rows = lists_.back().data();
    }
    Expect(list, std::max(held, 0) + move.to_first);
  }

  // Every byte of every target is as kvc::CopyRows leaves it.
  void RunAndCompare() {
    const int32_t most = MostRows(moves_);
    const DeviceArray<RowMove> table(moves_);
    MoveRows(table.data(), static_cast<int32_t>(moves_.size()), most, nullptr);
    for (size_t i = 0; i < targets_.size(); ++i) {
      const CachedPlane& target = targets_[i];
      ASSERT_EQ(target.Now(), expected_[i])
          << "move " << i << ": " << RowFormatName(sources_[i].format) << " " << sources_[i].width
          << " to " << RowFormatName(target.format) << " " << target.width << ", " << moves_[i].rows
          << " rows";
    }
  }

 private:
  void Expect(const std::vector<int32_t>& list, int64_t first) {
    const CachedPlane& source = sources_.back();
    const CachedPlane& target = targets_.back();
    std::vector<std::byte> bytes = target.bytes;
    for (size_t i = 0; i < list.size(); ++i) {
      CopyRows(source.bytes.data() + source.At(list[i]), source.stored(), 1,
               bytes.data() + target.At(first + static_cast<int64_t>(i)), target.stored());
    }
    expected_.push_back(std::move(bytes));
  }

  Rng& rng_;
  std::deque<CachedPlane> sources_, targets_;
  std::deque<DeviceArray<int32_t>> lists_, held_;
  std::vector<RowMove> moves_;
  std::vector<std::vector<std::byte>> expected_;
};

// All pairs of formats, whole rows and prefixes, ragged, in one launch.
TEST(MoveRows, FollowsTheRuleOfCopyRowsToTheBit) {
  Rng rng(31);
  UnderOrders([&] {
    MoveTable table(rng);
    for (const RowFormat& from : kAllRowFormats) {
      for (const RowFormat& to : kAllRowFormats) {
        for (const int64_t width : kWidths) {
          const int64_t rows = kRowCounts[static_cast<size_t>(rng.NextBelow(4))];
          table.Add(from, width, to, width, rows, true);
          table.Add(from, width, to, 1 + rng.NextBelow(width), rows, rng.NextBelow(2) == 0);
        }
      }
    }
    table.RunAndCompare();
  });
}

TEST(MoveRows, AnyNumberOfRows) {
  Rng rng(32);
  for (const int64_t rows : {0, 1, 63, 64, 65, 200}) {
    MoveTable table(rng);
    table.Add(kRowsBF16, 64, kRowsBF16, 64, rows, true);
    table.Add(kRowsBF16, 7, kRowsInt8, 7, rows, false);
    table.RunAndCompare();
  }
  MoveTable(rng).RunAndCompare();
}

// Numbers for which codes with steps have no code are counted, those of columns without bits too;
// other formats have a way to say them.
TEST(MoveRows, CountsWhatHasNoCode) {
  Rng rng(39);
  for (const RowFormat& to : kAllRowFormats) {
    std::vector<float> values = RandomFloats(rng, 9 * 61);
    values[3] = std::nanf("");
    values[61 + 60] = INFINITY;
    values[8 * 61] = -INFINITY;
    const CachedPlane source(kRowsF32, 9, 61, 0, 0, values);
    const CachedPlane target(to, 9, 61, 0, 0, RandomFloats(rng, 9 * 61));
    const DeviceArray<int32_t> faults(std::vector<int32_t>{0});
    RowMove move;
    move.from = source.view();
    move.to = target.view();
    move.rows = 9;
    move.faults = faults.data();
    const DeviceArray<RowMove> table(std::vector<RowMove>{move});
    MoveRows(table.data(), 1, 9, nullptr);
    EXPECT_EQ(faults.Host()[0], NeedsSteps(to) ? 3 : 0) << RowFormatName(to);
    move.rows = 7;
    move.from_first = 1;
    move.from.width = move.to.width = 60;
    const DeviceArray<RowMove> finite(std::vector<RowMove>{move});
    MoveRows(finite.data(), 1, 7, nullptr);
    EXPECT_EQ(faults.Host()[0], NeedsSteps(to) ? 3 : 0) << RowFormatName(to) << ", finite";
  }
}

// Stores behind the rows that a counter on the device says are there.
TEST(MoveRows, StoresBehindTheRowsHeld) {
  Rng rng(33);
  MoveTable table(rng);
  for (const RowFormat& to : kAllRowFormats) {
    for (const int64_t width : kWidths) {
      table.Add(kRowsF32, width + 5, to, width, 1, false, static_cast<int32_t>(rng.NextBelow(4)));
    }
  }
  table.RunAndCompare();
}

// Three sequences store a token each of keys [3, n * R] and values [3, G * D] in one launch; groups
// have key widths of their own and two planes of values.
TEST(MoveRows, StoresTokensOfABatch) {
  Rng rng(34);
  const std::vector<int64_t> ranks = {13, 7};
  const int64_t stored = 16;
  const int64_t width = 24;
  const TestRows keys = RandomRows(rng, DType::kF32, 3, 2 * stored);
  const TestRows values = RandomRows(rng, DType::kF32, 3, 4 * width);
  std::deque<CachedPlane> planes;
  std::vector<RowMove> moves;
  std::vector<std::vector<std::byte>> expected;
  const auto add = [&](const TestRows& x, int64_t t, int64_t column, int64_t columns, int64_t row) {
    const CachedPlane& plane = planes.emplace_back(RandomPlane(rng, kRowsInt8, 9, columns));
    RowMove move;
    move.from = {static_cast<float*>(x.view().data) + column, RowCode::kF32,
                 static_cast<int32_t>(columns), x.stride * 4};
    move.to = plane.view();
    move.from_first = static_cast<int32_t>(t);
    move.to_first = static_cast<int32_t>(row);
    move.rows = 1;
    moves.push_back(move);
    expected.push_back(plane.bytes);
    EncodeRows({x.values.data() + t * x.stride + column, 1, columns}, kRowsInt8,
               expected.back().data() + plane.At(row), plane.stride);
  };
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t n = 0; n < 2; ++n) {
      add(keys, t, n * stored, ranks[static_cast<size_t>(n)], 2 * t);
      add(values, t, 2 * n * width, width, 2 * t);
      add(values, t, (2 * n + 1) * width, width, 2 * t);
    }
  }
  const DeviceArray<RowMove> table(moves);
  MoveRows(table.data(), static_cast<int32_t>(moves.size()), MostRows(moves), nullptr);
  for (size_t i = 0; i < planes.size(); ++i) {
    ASSERT_EQ(planes[i].Now(), expected[i]) << i;
  }
}

// Queries of three heads of two widths go to a ring of 5 rows, 3 at a time.
TEST(MoveRows, PushesQueriesToARing) {
  Rng rng(35);
  const std::vector<int64_t> widths = {4, 6, 6};
  const int64_t stored = 8;
  const int64_t ring = 5;
  const DeviceArray<float> buffer(std::vector<float>(static_cast<size_t>(ring * 16), 0.0F));
  std::vector<float> expected(static_cast<size_t>(ring * 16), 0.0F);
  for (int32_t pushed = 0; pushed < 12; pushed += 3) {
    const TestRows q = RandomRows(rng, DType::kF32, 3, 3 * stored);
    const DeviceArray<int32_t> held(std::vector<int32_t>{pushed});
    std::vector<RowMove> moves;
    int64_t offset = 0;
    for (size_t h = 0; h < widths.size(); ++h) {
      const auto width = static_cast<int32_t>(widths[h]);
      RowMove move;
      move.from = {static_cast<float*>(q.view().data) + static_cast<int64_t>(h) * stored,
                   RowCode::kF32, width, q.stride * 4};
      move.to = {buffer.data() + offset, RowCode::kF32, width, 16 * 4};
      move.held = held.data();
      move.rows = 3;
      move.ring = static_cast<int32_t>(ring);
      moves.push_back(move);
      for (int64_t t = 0; t < 3; ++t) {
        for (int64_t d = 0; d < width; ++d) {
          expected[static_cast<size_t>((pushed + t) % ring * 16 + offset + d)] =
              static_cast<float>(q.at(t, static_cast<int64_t>(h) * stored + d));
        }
      }
      offset += width;
    }
    const DeviceArray<RowMove> table(moves);
    MoveRows(table.data(), 3, MostRows(moves), nullptr);
    ASSERT_EQ(buffer.Host(), expected) << pushed;
  }
}

TEST(MoveRows, TablesThatDoNotFitAreRefused) {
  Rng rng(36);
  const CachedPlane narrow = RandomPlane(rng, kRowsF16, 3, 4);
  const CachedPlane wide = RandomPlane(rng, kRowsF16, 3, 5);
  RowMove move;
  move.from = wide.view();
  move.to = narrow.view();
  move.rows = 3;
  EXPECT_EQ(MostRows({move, RowMove()}), 3);
  EXPECT_EQ(MostRows({}), 0);
  const auto refused = [&](const std::function<void(RowMove&)>& change) {
    RowMove changed = move;
    change(changed);
    try {
      (void)MostRows({move, changed});
    } catch (const Error& error) {
      return error.kind() == ErrorKind::kBadShape &&
             std::string(error.what()).find("move 1") != std::string::npos;
    }
    return false;
  };
  EXPECT_TRUE(refused([&](RowMove& m) { std::swap(m.from, m.to); }));
  EXPECT_TRUE(refused([](RowMove& m) { m.to.stride = 7; }));
  EXPECT_TRUE(refused([](RowMove& m) { m.from.stride = 11; }));
  EXPECT_TRUE(refused([](RowMove& m) { m.to.data = static_cast<std::byte*>(m.to.data) + 1; }));
  EXPECT_TRUE(refused([](RowMove& m) { m.ring = 2; }));
  EXPECT_TRUE(refused([](RowMove& m) { m.rows = -1; }));
  EXPECT_THROW(MoveRows(nullptr, 65536, 1, nullptr), Error);
}

// Planes whose rows move down in place, with what should be left.
class GapTable {
 public:
  explicit GapTable(Rng& rng) : rng_(rng) {}

  // Keeps the rows listed, or (an empty list) those from `first` on.
  void Add(const RowFormat& format,
           int64_t rows,
           int64_t width,
           std::vector<int32_t> kept,
           int32_t first) {
    const CachedPlane& plane = planes_.emplace_back(RandomPlane(rng_, format, rows, width));
    KeptRows& gaps = gaps_.emplace_back();
    gaps.plane = plane.view();
    if (kept.empty()) {
      gaps.first = first;
      kept.resize(static_cast<size_t>(rows - first));
      std::iota(kept.begin(), kept.end(), first);
    } else {
      lists_.emplace_back(kept);
      gaps.kept = lists_.back().data();
    }
    gaps.rows = static_cast<int32_t>(kept.size());
    const int64_t bytes = RowBytes(format, width, plane.codes.host());
    most_bytes_ = std::max(most_bytes_, bytes);
    std::vector<std::byte>& expected = expected_.emplace_back(plane.bytes);
    for (size_t i = 0; i < kept.size(); ++i) {
      std::memmove(expected.data() + plane.At(static_cast<int64_t>(i)),
                   expected.data() + plane.At(kept[i]), static_cast<size_t>(bytes));
    }
  }
  void RunAndCompare() {
    const DeviceArray<KeptRows> table(gaps_);
    KeepRows(table.data(), static_cast<int32_t>(gaps_.size()), most_bytes_, nullptr);
    for (size_t i = 0; i < planes_.size(); ++i) {
      ASSERT_EQ(planes_[i].Now(), expected_[i])
          << "plane " << i << ": " << planes_[i].rows << " rows of " << planes_[i].width << " "
          << RowFormatName(planes_[i].format);
    }
  }

 private:
  Rng& rng_;
  std::deque<CachedPlane> planes_;
  std::deque<DeviceArray<int32_t>> lists_;
  std::vector<KeptRows> gaps_;
  std::vector<std::vector<std::byte>> expected_;
  int64_t most_bytes_ = 0;
};

// Each row is kept with probability `share`.
std::vector<int32_t> RandomSubset(Rng& rng, int64_t rows, double share) {
  std::vector<int32_t> kept;
  for (int64_t row = 0; row < rows; ++row) {
    if (rng.NextDouble() < share) kept.push_back(static_cast<int32_t>(row));
  }
  return kept;
}

TEST(KeepRows, ClosesGapsOfAnyPlane) {
  Rng rng(37);
  UnderOrders([&] {
    GapTable table(rng);
    for (const RowFormat& format : kAllRowFormats) {
      for (const int64_t width : kWidths) {
        for (const int64_t rows : kRowCounts) {
          table.Add(format, rows, width, RandomSubset(rng, rows, 0.7), 0);
          table.Add(format, rows, width, {}, static_cast<int32_t>(rng.NextBelow(rows + 1)));
        }
      }
    }
    table.RunAndCompare();
  });
}

// More rows than a block takes at a time: 512 of 16-byte units, 128 of 4-byte ones.
TEST(KeepRows, ClosesGapsOfManyRows) {
  Rng rng(38);
  for (const double share : {0.02, 0.5, 0.99}) {
    GapTable table(rng);
    table.Add(kRowsBF16, 1500, 64, RandomSubset(rng, 1500, share), 0);
    table.Add(kRowsInt8, 900, 13, RandomSubset(rng, 900, share), 0);
    table.Add(kRowsF16, 700, 7, {}, 1);
    table.Add(kRowsF32, 700, 8, {}, 650);
    table.RunAndCompare();
  }
}

}  // namespace
}  // namespace kvc::cuda
