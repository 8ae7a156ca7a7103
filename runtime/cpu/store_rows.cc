#include "runtime/cpu/store_rows.h"

#include <algorithm>
#include <vector>

#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/head_basis.h"

namespace kvc::runtime {
namespace {

// Appends rows of all groups to their recent blocks as they are.
void AppendToGroups(
    const AttentionStep& step, ConstMatrixF k, ConstMatrixF v, int64_t first, LayerCache& layer) {
  const auto groups = std::ssize(layer.groups);
  const int64_t values = v.cols / groups;
  for (int64_t n = 0; n < groups; ++n) {
    AppendRows(k.ColRange(n * step.stored_width, step.stored_width), v.ColRange(n * values, values),
               first, layer.groups[n].recent);
  }
}

// Coordinates of keys and values: of k [T, n * R] and v [T, G * D].
void Project(const AttentionStep& step,
             const LayerCoordinates& coordinates,
             ConstMatrixF k,
             ConstMatrixF v,
             MatrixF keys,
             MatrixF values) {
  const int64_t width = v.cols / step.num_kv_heads;
  for (int64_t g = 0; g < step.num_kv_heads; ++g) {
    ValueBasis(coordinates, g)
        .ToCoordinates(v.ColRange(g * width, width), values.ColRange(g * width, width));
  }
  const int64_t planes = step.num_kv_heads / std::ssize(step.key_ranks);
  for (int64_t n = 0; n < std::ssize(step.key_ranks); ++n) {
    const int64_t rank = step.key_ranks[n];
    const ConstMatrixF from = k.ColRange(n * step.stored_width, rank);
    const MatrixF to = keys.ColRange(n * step.stored_width, rank);
    const HeadBasis basis = KeyBasis(coordinates, n * planes);
    if (basis.width() > 0) {
      basis.ToCoordinates(from, to);
    } else {
      for (int64_t t = 0; t < from.rows; ++t) std::copy_n(from.row(t), rank, to.row(t));
    }
  }
}

}  // namespace

int64_t QueryStride(const AttentionStep& step, ConstMatrixF q) { return q.cols / step.num_heads; }

void StoreRows(const AttentionStep& step,
               ConstMatrixF q,
               ConstMatrixF k,
               ConstMatrixF v,
               int64_t first,
               SequenceCache& cache) {
  LayerCache& layer = cache.layer(step.layer);
  if (!cache.spec().full()) PushQueries(q, QueryStride(step, q), layer.queries);
  if (!layer.in_coordinates()) {
    AppendToGroups(step, k, v, first, layer);
    return;
  }
  thread_local std::vector<float> scratch;  // kept from token to token
  scratch.resize(static_cast<size_t>(k.rows * (k.cols + v.cols)));
  const MatrixF keys(scratch.data(), k.rows, k.cols);
  const MatrixF values(scratch.data() + k.rows * k.cols, v.rows, v.cols);
  Project(step, *layer.coordinates, k, v, keys, values);
  AppendToGroups(step, keys, values, first, layer);
}

}  // namespace kvc::runtime
