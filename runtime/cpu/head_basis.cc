#include "runtime/cpu/head_basis.h"

#include <vector>

#include "linalg/basis.h"
#include "linalg/householder.h"
#include "linalg/products.h"
#include "runtime/cpu/host_memory.h"

namespace kvc::runtime {
namespace {

// The [width, width] corner of head `head`'s block of a basis [G, D, D].
ConstMatrixF Corner(const std::vector<float>& basis, int64_t full, int64_t head, int64_t width) {
  return {basis.data() + head * full * full, width, width, full};
}

MatrixF Reflectors(const LayerCoordinates& coordinates, const BasisPlace& place) {
  return {HostMemory::Floats(coordinates.reflectors()) + place.offset, place.rows, place.width};
}

}  // namespace

void HeadBasis::ToCoordinates(ConstMatrixF x, MatrixF y) const {
  if (reflectors_.cols == 0) {
    linalg::ToCoordinates(x, {forward_, back_, mean_}, y);
  } else {
    linalg::ToReflected(x, reflectors_, y);
  }
}

void HeadBasis::FromCoordinates(ConstMatrixF y, MatrixF x) const {
  if (reflectors_.cols == 0) {
    linalg::FromCoordinates(y, {forward_, back_, mean_}, x);
  } else {
    linalg::FromReflected(y, reflectors_, x);
  }
}

void HeadBasis::ToQueries(ConstMatrixF x, MatrixF y) const {
  if (reflectors_.cols == 0) {
    linalg::GemmNN(x, back_, false, y);
  } else {
    linalg::ToReflected(x, reflectors_, y);
  }
}

HeadBasis KeyBasis(const LayerCoordinates& coordinates, int64_t head) {
  const BasisPlace& place = coordinates.keys(head);
  if (place.width == 0) return {};
  const LayerBases* bases = coordinates.calibrated();
  if (bases == nullptr) return HeadBasis(Reflectors(coordinates, place));
  const int64_t group = bases->KeyGroupOf(head);
  return {Corner(bases->key, bases->key_width, group, place.width),
          Corner(bases->query, bases->key_width, group, place.width),
          bases->key_mean.data() + group * bases->key_width};
}

HeadBasis ValueBasis(const LayerCoordinates& coordinates, int64_t head) {
  const BasisPlace& place = coordinates.values(head);
  const LayerBases* bases = coordinates.calibrated();
  if (bases == nullptr) return HeadBasis(Reflectors(coordinates, place));
  return {Corner(bases->value, bases->value_width, head, place.width),
          Corner(bases->output, bases->value_width, head, place.width),
          bases->value_mean.data() + head * bases->value_width};
}

void SetHead(const LayerCoordinates& coordinates,
             int64_t head,
             ConstMatrixF keys,
             ConstMatrixF values) {
  const auto set = [&](const BasisPlace& place, ConstMatrixF rows) {
    if (place.rows > 0) linalg::FindReflectors(rows, Reflectors(coordinates, place));
  };
  set(coordinates.keys(head), keys);
  set(coordinates.values(head), values);
}

}  // namespace kvc::runtime
