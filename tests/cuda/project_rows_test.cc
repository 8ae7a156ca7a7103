#include "kernels/cuda/project_rows.h"

#include <algorithm>
#include <deque>
#include <functional>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/cached_plane.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {
namespace {

// A basis on the device with its numbers: two matrices and a mean, or reflectors.
struct TestBasis {
  int64_t width, stride, count;
  std::vector<float> forward, back, mean, reflectors;
  DeviceArray<float> device_forward, device_back, device_mean, device_reflectors;

  TestBasis(Rng& rng, int64_t columns, int64_t num_reflectors, bool centred)
      : width(columns),
        stride(columns + 3),
        count(num_reflectors),
        forward(RandomFloats(rng, columns * stride)),
        back(RandomFloats(rng, columns * stride)),
        mean(RandomFloats(rng, centred ? columns : 0)),
        reflectors(UnitReflectors(rng, num_reflectors, columns)),
        device_forward(forward),
        device_back(back),
        device_mean(mean),
        device_reflectors(reflectors) {}

  [[nodiscard]] RowBasis view() const {
    RowBasis basis;
    basis.width = static_cast<int32_t>(width);
    basis.mean = mean.empty() ? nullptr : device_mean.data();
    if (count > 0) {
      basis.reflectors = device_reflectors.data();
      basis.count = static_cast<int32_t>(count);
    } else {
      basis.forward = device_forward.data();
      basis.back = device_back.data();
      basis.stride = stride;
    }
    return basis;
  }

 private:
  // |u|^2 = 2
  static std::vector<float> UnitReflectors(Rng& rng, int64_t rows, int64_t width) {
    std::vector<float> u = RandomFloats(rng, rows * width);
    for (int64_t i = 0; i < rows; ++i) {
      double square = 0.0;
      for (int64_t d = 0; d < width; ++d) square += std::pow(u[i * width + d], 2);
      for (int64_t d = 0; d < width; ++d) {
        u[i * width + d] = static_cast<float>(u[i * width + d] * std::sqrt(2.0 / square));
      }
    }
    return u;
  }
};

// A row in other coordinates in double, and the sizes of what was added up to it.
struct Reference {
  std::vector<double> y, size;
};

Reference Reflected(const TestBasis& basis, std::vector<double> x, bool back) {
  double length = 0.0;
  for (const double value : x) length += value * value;
  for (int64_t i = 0; i < basis.count; ++i) {
    const float* u = basis.reflectors.data() + (back ? basis.count - 1 - i : i) * basis.width;
    double dot = 0.0;
    for (int64_t d = 0; d < basis.width; ++d) dot += x[d] * u[d];
    for (int64_t d = 0; d < basis.width; ++d) x[d] -= dot * u[d];
  }
  // Each reflection keeps the length and adds a few roundings of it.
  const double size = (2.0 + static_cast<double>(basis.count)) * std::sqrt(length);
  return {x, std::vector<double>(x.size(), size)};
}

Reference Multiplied(const TestBasis& basis, const std::vector<double>& x, BasisWay way) {
  Reference out = {std::vector<double>(basis.width, 0.0), std::vector<double>(basis.width, 0.0)};
  const std::vector<float>& m = way == BasisWay::kToCoordinates ? basis.forward : basis.back;
  for (int64_t j = 0; j < basis.width; ++j) {
    for (int64_t d = 0; d < std::ssize(x); ++d) {
      const int64_t at =
          way == BasisWay::kFromCoordinates ? j * basis.stride + d : d * basis.stride + j;
      out.y[j] += x[d] * m[at];
      out.size[j] += std::abs(x[d] * m[at]);
    }
  }
  return out;
}

Reference Project(const TestBasis& basis, std::vector<double> x, BasisWay way) {
  const bool back = way == BasisWay::kFromCoordinates;
  const bool centred = !basis.mean.empty() && way != BasisWay::kToQueries;
  if (centred && !back) {
    for (int64_t d = 0; d < basis.width; ++d) x[d] -= basis.mean[d];
  }
  if (basis.count > 0) {
    x.resize(basis.width, 0.0);
  }
  Reference out =
      basis.count > 0 ? Reflected(basis, std::move(x), back) : Multiplied(basis, x, way);
  for (int64_t d = 0; centred && back && d < basis.width; ++d) {
    out.y[d] += basis.mean[d];
    out.size[d] += std::abs(basis.mean[d]);
  }
  return out;
}

// A table of projections, each with planes of its own.
class ProjectionTable {
 public:
  explicit ProjectionTable(Rng& rng) : rng_(rng) {}

  void Add(const TestBasis& basis,
           BasisWay way,
           const RowFormat& from,
           const RowFormat& to,
           int64_t rows,
           int64_t narrow,
           bool listed) {
    const bool back = way == BasisWay::kFromCoordinates;
    const int64_t from_width = back ? narrow : basis.width;
    const int64_t to_width = way == BasisWay::kToCoordinates ? narrow : basis.width;
    const int64_t room = rows + 2;
    const auto plane = [&](const RowFormat& format, int64_t width) {
      const int64_t unit = ElementBits(format) == 16 ? 2 : 4;
      return CachedPlane(format, room, width, unit * rng_.NextBelow(3), 0,
                         RandomFloats(rng_, room * width));
    };
    sources_.push_back(plane(from, from_width));
    targets_.push_back(plane(to, to_width));
    bases_.push_back(&basis);
    RowProjection& projection = projections_.emplace_back();
    projection.basis = basis.view();
    projection.way = way;
    RowMove& move = projection.move;
    move.from = sources_.back().view();
    move.to = targets_.back().view();
    move.rows = static_cast<int32_t>(rows);
    move.to_first = static_cast<int32_t>(rng_.NextBelow(3));
    std::vector<int32_t>& list = rows_.emplace_back(static_cast<size_t>(rows));
    for (int64_t i = 0; i < rows; ++i) {
      list[i] = static_cast<int32_t>(listed ? rng_.NextBelow(room) : i);
    }
    if (listed) {
      lists_.emplace_back(list);
      move.from_rows = lists_.back().data();
    }
  }

  void RunAndCompare() {
    const ProjectionSize size = SizeOf(projections_);
    const DeviceArray<RowProjection> table(projections_);
    ProjectRows(table.data(), static_cast<int32_t>(projections_.size()), size, nullptr);
    for (size_t i = 0; i < projections_.size(); ++i) {
      Compare(i);
    }
  }

 private:
  void Compare(size_t i) const {
    const RowProjection& projection = projections_[i];
    const CachedPlane& target = targets_[i];
    const std::vector<float> source = sources_[i].Decoded(sources_[i].bytes);
    const std::vector<std::byte> bytes = target.Now();
    const std::vector<float> now = target.Decoded(bytes);
    for (int64_t row = 0; row < target.rows; ++row) {
      const int64_t k = row - projection.move.to_first;
      if (k < 0 || k >= projection.move.rows) {
        ASSERT_TRUE(std::equal(bytes.begin() + target.At(row), bytes.begin() + target.At(row + 1),
                               target.bytes.begin() + target.At(row)))
            << i << ": row " << row << " is no target";
        continue;
      }
      const float* x = source.data() + rows_[i][static_cast<size_t>(k)] * sources_[i].width;
      CompareRow(i, Project(*bases_[i], {x, x + sources_[i].width}, projection.way),
                 now.data() + row * target.width);
    }
  }

  // Sums in float, off by a rounding of their size for each term, then the format's rounding.
  void CompareRow(size_t i, const Reference& want, const float* got) const {
    const CachedPlane& target = targets_[i];
    double largest = 0.0;
    for (int64_t d = 0; d < target.width; ++d) largest = std::max(largest, std::abs(want.y[d]));
    for (int64_t d = 0; d < target.width; ++d) {
      const double sum = static_cast<double>(bases_[i]->width + 8) * 0x1p-24 * want.size[d];
      if (NeedsSteps(target.format)) {
        const int64_t bits = target.codes.BitsOf(d);
        if (bits == 0) {
          ASSERT_EQ(got[d], 0.0F) << "projection " << i << " column " << d << " without bits";
          continue;
        }
        const double step = target.codes.StepOf(d);
        const double reach = std::pow(2.0, static_cast<double>(bits) - 1.0);
        const double y = std::clamp(want.y[d], -reach * step, reach * step);
        ASSERT_LE(std::abs(got[d] - y), 2.0 * sum + 0.501 * step)
            << "projection " << i << " column " << d << " in codes: " << got[d] << " for "
            << want.y[d];
        continue;
      }
      const double rounding = target.format == kRowsF32    ? 0.0
                              : target.format == kRowsF16  ? 0x1p-11 * std::abs(want.y[d]) + 0x1p-25
                              : target.format == kRowsBF16 ? 0x1p-8 * std::abs(want.y[d])
                                                           : 0.501 / 127.0 * largest;
      ASSERT_TRUE(std::abs(got[d] - want.y[d]) <= 2.0 * sum + rounding)
          << "projection " << i << " column " << d << " of " << bases_[i]->width << ": " << got[d]
          << " for " << want.y[d];
    }
  }

  Rng& rng_;
  std::deque<CachedPlane> sources_, targets_;
  std::deque<DeviceArray<int32_t>> lists_;
  std::vector<std::vector<int32_t>> rows_;
  std::vector<const TestBasis*> bases_;
  std::vector<RowProjection> projections_;
};

constexpr BasisWay kWays[] = {BasisWay::kToCoordinates, BasisWay::kToQueries,
                              BasisWay::kFromCoordinates};

// All ways and kinds of basis, ragged rows and widths, in one launch; up to the widest row.
void RunWidths(Rng& rng, const std::vector<int64_t>& widths, const std::vector<int64_t>& rows) {
  std::deque<TestBasis> bases;
  ProjectionTable table(rng);
  for (const int64_t width : widths) {
    for (const int64_t reflectors : {int64_t{0}, int64_t{1}, width}) {
      for (const bool centred : {false, true}) {
        const TestBasis& basis = bases.emplace_back(rng, width, reflectors, centred);
        for (const BasisWay way : kWays) {
          const auto format = [&] {
            return kAllRowFormats[static_cast<size_t>(rng.NextBelow(std::ssize(kAllRowFormats)))];
          };
          const int64_t count = rows[static_cast<size_t>(rng.NextBelow(std::ssize(rows)))];
          table.Add(basis, way, format(), format(), count, 1 + rng.NextBelow(width), true);
          table.Add(basis, way, kRowsF32, kRowsF32, count, width, false);
        }
      }
    }
  }
  table.RunAndCompare();
}

TEST(ProjectRows, FewRowsOfAnyWidth) {
  Rng rng(41);
  UnderOrders([&] { RunWidths(rng, {1, 7, 13, 64}, {0, 1, 2, 8}); });
  RunWidths(rng, {128, 33}, {1, 4});
}

TEST(ProjectRows, ManyRowsOfAnyWidth) {
  Rng rng(42);
  RunWidths(rng, {1, 13, 64}, {0, 1, 9, 70});
  RunWidths(rng, {100, 128}, {1, 66});
  RunWidths(rng, {200}, {3, 10});
}

TEST(ProjectRows, AllPairsOfFormats) {
  Rng rng(43);
  const TestBasis matrices(rng, 40, 0, true);
  const TestBasis reflectors(rng, 40, 17, false);
  ProjectionTable table(rng);
  for (const RowFormat& from : kAllRowFormats) {
    for (const RowFormat& to : kAllRowFormats) {
      table.Add(matrices, BasisWay::kToCoordinates, from, to, 5, 24, true);
      table.Add(reflectors, BasisWay::kToCoordinates, from, to, 11, 40, true);
    }
  }
  table.RunAndCompare();
}

// A row with a NaN has no coordinates that codes could hold: all of them are counted.
TEST(ProjectRows, CountsWhatHasNoCode) {
  Rng rng(47);
  const TestBasis basis(rng, 40, 0, true);
  for (const int64_t rows : {3, 30}) {
    for (const RowFormat& to : kAllRowFormats) {
      std::vector<float> values = RandomFloats(rng, rows * 40);
      values[45] = std::nanf("");
      const CachedPlane source(kRowsF32, rows, 40, 0, 0, values);
      const CachedPlane target(to, rows, 33, 0, 0, RandomFloats(rng, rows * 33));
      const DeviceArray<int32_t> faults(std::vector<int32_t>{0});
      RowProjection projection;
      projection.basis = basis.view();
      projection.move.from = source.view();
      projection.move.to = target.view();
      projection.move.rows = static_cast<int32_t>(rows);
      projection.move.faults = faults.data();
      const DeviceArray<RowProjection> table(std::vector<RowProjection>{projection});
      ProjectRows(table.data(), 1, SizeOf({projection}), nullptr);
      EXPECT_EQ(faults.Host()[0], NeedsSteps(to) ? 33 : 0) << RowFormatName(to) << ", " << rows;
    }
  }
}

// There and back again with orthogonal coordinates; reflectors as a matrix are the same basis.
TEST(ProjectRows, ReflectorsOfTheIdentityAreTheirMatrix) {
  Rng rng(44);
  const int64_t width = 29;
  const TestBasis basis(rng, width, 12, false);
  std::vector<float> identity(static_cast<size_t>(width * width), 0.0F);
  for (int64_t d = 0; d < width; ++d) identity[d * width + d] = 1.0F;
  const DeviceArray<float> one(identity);
  const DeviceArray<float> matrix(identity.size());
  const TestRows x = RandomRows(rng, DType::kF32, 6, width);
  const DeviceArray<float> y(static_cast<size_t>(6 * width));
  const DeviceArray<float> again(static_cast<size_t>(6 * width));
  const auto run = [&](const void* from, const RowBasis& by, BasisWay way, float* to,
                       int32_t rows) {
    RowProjection projection;
    const auto columns = static_cast<int32_t>(width);
    projection.move.from = {const_cast<void*>(from), RowCode::kF32, columns, width * 4};
    projection.move.to = {to, RowCode::kF32, columns, width * 4};
    projection.move.rows = rows;
    projection.basis = by;
    projection.way = way;
    const DeviceArray<RowProjection> table(std::vector<RowProjection>{projection});
    ProjectRows(table.data(), 1, SizeOf({projection}), nullptr);
    Synchronize(nullptr);
  };
  run(one.data(), basis.view(), BasisWay::kToCoordinates, matrix.data(),
      static_cast<int32_t>(width));
  RowBasis as_matrix;
  as_matrix.forward = matrix.data();
  as_matrix.back = matrix.data();
  as_matrix.stride = width;
  as_matrix.width = static_cast<int32_t>(width);
  run(x.view().data, as_matrix, BasisWay::kToCoordinates, y.data(), 6);
  run(y.data(), basis.view(), BasisWay::kFromCoordinates, again.data(), 6);
  const std::vector<float> now = again.Host();
  for (size_t i = 0; i < now.size(); ++i) {
    ASSERT_NEAR(now[i], x.values[i], 1e-5);
  }
}

// Rows without a basis are decoded and encoded, also where kvc::CopyRows would keep their bits.
TEST(ProjectRows, RowsWithoutABasisAreEncodedAgain) {
  Rng rng(45);
  for (const RowFormat& from : kRowFormats) {
    for (const RowFormat& to : kRowFormats) {
      for (const int64_t rows : {1, 20}) {
        const CachedPlane source = RandomPlane(rng, from, rows, 13);
        const CachedPlane target = RandomPlane(rng, to, rows, 13);
        RowProjection projection;
        projection.move.from = source.view();
        projection.move.to = target.view();
        projection.move.rows = static_cast<int32_t>(rows);
        const DeviceArray<RowProjection> table(std::vector<RowProjection>{projection});
        ProjectRows(table.data(), 1, SizeOf({projection}), nullptr);
        std::vector<std::byte> expected = target.bytes;
        EncodeRows({source.Decoded(source.bytes).data(), rows, 13}, to,
                   expected.data() + target.offset, target.stride);
        ASSERT_EQ(target.Now(), expected) << RowFormatName(from) << " " << RowFormatName(to);
      }
    }
  }
}

TEST(ProjectRows, TablesThatDoNotFitAreRefused) {
  Rng rng(46);
  const TestBasis basis(rng, 8, 0, true);
  const CachedPlane eight = RandomPlane(rng, kRowsF16, 3, 8);
  const CachedPlane five = RandomPlane(rng, kRowsF16, 3, 5);
  RowProjection projection;
  projection.move.from = eight.view();
  projection.move.to = five.view();
  projection.move.rows = 3;
  projection.basis = basis.view();
  EXPECT_EQ(SizeOf({projection}).most_rows, 3);
  EXPECT_EQ(SizeOf({projection}).most_width, 8);
  const auto refused = [&](const std::function<void(RowProjection&)>& change) {
    RowProjection changed = projection;
    change(changed);
    try {
      (void)SizeOf({changed});
    } catch (const Error& error) {
      return error.kind() == ErrorKind::kBadShape;
    }
    return false;
  };
  EXPECT_TRUE(refused([](RowProjection& p) { std::swap(p.move.from, p.move.to); }));
  EXPECT_TRUE(refused([](RowProjection& p) { p.way = BasisWay::kToQueries; }));
  EXPECT_TRUE(refused([](RowProjection& p) { p.way = BasisWay::kFromCoordinates; }));
  EXPECT_TRUE(refused([](RowProjection& p) { p.basis.stride = 7; }));
  EXPECT_TRUE(refused([](RowProjection& p) { p.basis.back = nullptr; }));
  EXPECT_TRUE(refused([](RowProjection& p) { p.move.to.stride = 3; }));
  EXPECT_THROW(ProjectRows(nullptr, 1, {1, 257}, nullptr), Error);
  EXPECT_THROW(ProjectRows(nullptr, 65536, {1, 8}, nullptr), Error);
}

}  // namespace
}  // namespace kvc::cuda
