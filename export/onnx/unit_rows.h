#pragma once
// A change of a latent's coordinates that leaves a decode step less to multiply when it rebuilds
// keys.
//
// Keys are k = B c with the latent c = A^T x; any invertible M gives the same keys from M c with B
// M^-1. With M = B_S, R rows S of B, the latent's elements are R of the keys' dimensions before the
// rotation, and those rows of the new B are unit vectors that need no product: of the G*D*R
// multiply-adds for a cached token, (G*D - R)*R remain. S is chosen as pivoted QR chooses columns:
// each next row is the one with the largest part outside the span of the previous ones, so that the
// other rows stay small combinations of them (elements up to about 2 on SmolLM2's factors). The
// elements of the new latent are no longer ordered by importance, nor nearly orthogonal: tiers that
// keep a prefix of them need the old ones, and rounding to 16 bits costs about 1.6 times as much
// accuracy.

#include <cstdint>
#include <span>
#include <vector>

namespace kvc::onnx_export {

// The factors of a layer's latents, as a thin checkpoint has them.
struct LatentFactors {
  std::vector<float> latent;   // [sum of ranks, E]: the rows of A^T, groups one after the other
  std::vector<float> rebuild;  // [G*D, R]: group i in columns 0 .. ranks[i] - 1
};

// Rewrites every group as above, in double. A group is left unchanged if R of its rows do not span
// its latent: if there are more columns than rows, or rows depend on each other up to rounding.
void MakeUnitRows(std::span<const int64_t> ranks, LatentFactors& factors);

}  // namespace kvc::onnx_export
