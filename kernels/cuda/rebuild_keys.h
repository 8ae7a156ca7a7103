#pragma once
// Keys from latents on the device as rows of their own, for what reads keys several times (scores);
// attention makes its keys on the way. The twin of kernels::RebuildKeys (kernels/attention.h). A
// table of rebuilds names what comes from where for all kv heads of a layer, their tiers, and
// several sequences; one launch executes it:
//
//   keys[i] = rotate(norm(B latents[i] + bias), positions[i])
//
// with the products of latent_keys.h, in an order that depends on widths alone. Latents that are a
// prefix of the matrix' columns, as tiers keep them, count as followed by zeros. Nothing waits for
// the stream.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/latent_keys.h"
#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

constexpr int32_t kMostRebuiltWidth = 256;

// The rows of one kv head, or of one of its tiers.
struct KeyRebuild {
  CachedRows latents;  // [rows, r], r at most R
  CachedRows keys;     // [rows, D], written; of any code
  LatentKeys how;
  // [rows] or null: a row's number. All within the rotation's tables, which nothing checks.
  const int32_t* positions = nullptr;
  // On the device, or null: the rows that are there, 0 to `rows`, read by each launch.
  const int32_t* live = nullptr;
  int32_t rows = 0;
};

// The most rows of any rebuild in a table. Throws kUnsupported for keys wider than
// kMostRebuiltWidth, kBadShape, naming the rebuild, for sizes that do not fit each other and for
// addresses or strides that do not fit the elements.
[[nodiscard]] int32_t MostRows(const std::vector<KeyRebuild>& rebuilds);

// Executes rebuilds [count] on the device. No target may overlap anything that is read or another
// target. Throws kBadShape for counts that no grid holds.
void RebuildKeys(const KeyRebuild* rebuilds, int32_t count, int32_t most_rows, StreamHandle stream);

}  // namespace kvc::cuda
