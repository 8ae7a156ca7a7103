// Checks of the tables that move_rows.h and project_rows.h are given, while they are on the host.

#include <algorithm>

#include "core/base/error.h"
#include "kernels/cuda/move_rows.h"
#include "kernels/cuda/project_rows.h"

namespace kvc::cuda {
namespace {

void CheckMove(const RowMove& move, size_t number) {
  CheckCachedRows(move.from, "source of move", number);
  CheckCachedRows(move.to, "target of move", number);
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
