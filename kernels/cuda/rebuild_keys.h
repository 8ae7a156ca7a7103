#pragma once
// Keys from latents on the device; the twin of kernels::RebuildKeys (kernels/attention.h). A table
// of rebuilds names what comes from where for all kv heads of a layer, their tiers, and several
// sequences; one launch executes it:
//
//   keys[i] = rotate(norm(matrix latents[i] + bias), positions[i])
//
// Latents are decoded exactly, products and sums are in float, in an order that depends on widths
// alone. Latents that are a prefix of the matrix' columns, as tiers keep them, count as followed by
// zeros. Nothing waits for the stream.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

constexpr int32_t kMostRebuiltWidth = 128;

// The rows of one kv head, or of one of its tiers.
struct KeyRebuild {
  CachedRows latents;                  // [rows, r], r at most the matrix' columns
  CachedRows keys;                     // [rows, D], written; of any code
  const float* matrix = nullptr;       // [D, >= r], rows matrix_stride floats apart
  const float* bias = nullptr;         // [D] or null
  const float* norm_weight = nullptr;  // [D] or null: RMS norm, then these factors
  // [rows] or null: a row's number. All within the rotation's tables, which nothing checks.
  const int32_t* positions = nullptr;
  // On the device, or null: the rows that are there, 0 to `rows`, read by each launch.
  const int32_t* live = nullptr;
  RotationTable rotation;  // half 0: none
  int64_t matrix_stride = 0;
  float norm_epsilon = 0.0F;
  int32_t rows = 0;
};

// What RebuildKeys is told of a table: the most rows and the widest keys of any rebuild in it.
struct RebuildSize {
  int32_t most_rows = 0;
  int32_t most_width = 0;
};
// Throws kUnsupported for keys wider than kMostRebuiltWidth, kBadShape, naming the rebuild, for
// sizes that do not fit each other and for addresses or strides that do not fit the elements.
[[nodiscard]] RebuildSize SizeOf(const std::vector<KeyRebuild>& rebuilds);

// Executes rebuilds [count] on the device. No target may overlap anything that is read or another
// target. Throws kBadShape for counts that no grid holds.
void RebuildKeys(const KeyRebuild* rebuilds,
                 int32_t count,
                 const RebuildSize& size,
                 StreamHandle stream);

}  // namespace kvc::cuda
