// Checks of the tables that move_rows.h and project_rows.h are given, while they are on the host.

#include <algorithm>

#include "core/base/error.h"
#include "kernels/cuda/move_rows.h"
#include "kernels/cuda/project_rows.h"

namespace kvc::cuda {
namespace {

// The bytes of which rows' addresses are multiples.
int64_t AddressUnit(RowCode code) {
  return code == RowCode::kF16 || code == RowCode::kBF16 ? 2 : 4;
}

void CheckRows(const CachedRows& rows, const char* which, size_t number) {
  const int64_t bytes = CachedRowBytes(rows.code, rows.width);
  const int64_t unit = AddressUnit(rows.code);
  KVC_CHECK(rows.width >= 0 && rows.stride >= bytes, kBadShape,
            "move {}: expected {} rows at least {} bytes apart, got {}", number, which, bytes,
            rows.stride);
  KVC_CHECK(rows.stride % unit == 0 && reinterpret_cast<uintptr_t>(rows.data) % unit == 0,
            kBadShape, "move {}: expected {} rows at multiples of {} bytes, got {}, {} apart",
            number, which, unit, rows.data, rows.stride);
}

void CheckMove(const RowMove& move, size_t number) {
  CheckRows(move.from, "source", number);
  CheckRows(move.to, "target", number);
  KVC_CHECK(move.rows >= 0 && (move.ring == 0 || move.ring >= move.rows), kBadShape,
            "move {}: expected at most the ring's {} rows, got {}", number, move.ring, move.rows);
}

void CheckWidths(const RowProjection& in, size_t number) {
  const int32_t from = in.move.from.width;
  const int32_t to = in.move.to.width;
  const RowBasis& basis = in.basis;
  if (basis.reflectors == nullptr && basis.forward == nullptr) {
    KVC_CHECK(to <= from, kBadShape, "projection {}: expected at most {} columns, got {}", number,
              from, to);
    return;
  }
  bool fits = from >= basis.width && to <= basis.width;
  if (in.way == BasisWay::kToQueries) fits = from >= basis.width && to == basis.width;
  if (in.way == BasisWay::kFromCoordinates) fits = from <= basis.width && to == basis.width;
  KVC_CHECK(fits, kBadShape, "projection {}: expected rows of the basis' width {}, got {} to {}",
            number, basis.width, from, to);
  KVC_CHECK(basis.reflectors != nullptr || (basis.back != nullptr && basis.stride >= basis.width),
            kBadShape, "projection {}: expected two matrices [{}, {}], got a stride of {}", number,
            basis.width, basis.width, basis.stride);
}

}  // namespace

int32_t MostRows(const std::vector<RowMove>& moves) {
  int32_t most = 0;
  for (size_t i = 0; i < moves.size(); ++i) {
    CheckMove(moves[i], i);
    KVC_CHECK(moves[i].to.width <= moves[i].from.width, kBadShape,
              "move {}: expected at most the source's {} columns, got {}", i, moves[i].from.width,
              moves[i].to.width);
    most = std::max(most, moves[i].rows);
  }
  return most;
}

ProjectionSize SizeOf(const std::vector<RowProjection>& projections) {
  ProjectionSize size;
  for (size_t i = 0; i < projections.size(); ++i) {
    const RowProjection& in = projections[i];
    CheckMove(in.move, i);
    CheckWidths(in, i);
    size.most_rows = std::max(size.most_rows, in.move.rows);
    size.most_width = std::max({size.most_width, in.move.to.width, in.basis.width});
  }
  KVC_CHECK(size.most_width <= kMostBasisWidth, kUnsupported,
            "projections: expected a width of at most {}, got {}", kMostBasisWidth,
            size.most_width);
  return size;
}

}  // namespace kvc::cuda
