#pragma once
// Rebuilds of keys from latents that lie in the coordinates of a profile's bases
// (core/cache/cache_bases.h). Undoing the coordinates and rebuilding are one product: with
// c = mean + c' query^T and k = B c + b,
//
//   k = (B query) c' + (b + B mean)
//
// so such keys cost what keys from latents cost, but for the rows of B that are unit vectors.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/cache/cache_bases.h"
#include "kernels/attention.h"

namespace kvc::runtime {

// A layer's rebuilds with what they point into. Movable.
struct LatentRebuilds {
  std::vector<float> matrices;             // [G, D, R]: B query
  std::vector<float> offsets;              // [G, D]: b + B mean
  std::vector<kernels::KeyRebuild> heads;  // [G]
};

// The rebuilds of a model's layers for one set of bases, which it keeps alive.
struct RebuildsOfBases {
  std::shared_ptr<const std::vector<LayerBases>> bases;
  std::vector<LatentRebuilds> layers;  // [L]; empty before they are asked for
};

// Returns the rebuilds [G] of latents in the coordinates of `bases`, whose tables and norms they
// share with `heads` [G]. Throws kUnsupported, naming the layer, where rows of B are unit vectors:
// such latents have been rewritten since they were profiled.
[[nodiscard]] LatentRebuilds RebuildsFromCoordinates(std::span<const kernels::KeyRebuild> heads,
                                                     const LayerBases& bases,
                                                     int64_t layer);

}  // namespace kvc::runtime
