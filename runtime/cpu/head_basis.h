#pragma once
// The way between the coordinates of a layer (runtime/cache/coordinates.h) and keys, queries,
// values and outputs as the model has them.

#include <cstdint>

#include "core/base/view.h"
#include "runtime/cache/coordinates.h"

namespace kvc::runtime {

// The basis of one head's keys (key and query of the bases) or values (value and output). Borrows.
class HeadBasis {
 public:
  HeadBasis() = default;
  // x' = (x - mean) forward, x = mean + x' back^T; matrices [D, D], mean [D] or null.
  HeadBasis(ConstMatrixF forward, ConstMatrixF back, const float* mean)
      : forward_(forward), back_(back), mean_(mean), width_(forward.rows) {}
  // x' = x H_1 .. H_r, the reflections of reflectors [r, D] (linalg/householder.h): orthogonal.
  explicit HeadBasis(ConstMatrixF reflectors) : reflectors_(reflectors), width_(reflectors.cols) {}
  // No rows for a calibrated basis.
  [[nodiscard]] ConstMatrixF reflectors() const { return reflectors_; }

  // D; 0: rows are stored as they are, and nothing below may be called.
  [[nodiscard]] int64_t width() const { return width_; }
  // The first y.cols coordinates of rows x [T, D]: y [T, r].
  void ToCoordinates(ConstMatrixF x, MatrixF y) const;
  // Rows x [T, D] from their first y.cols coordinates, and outputs [T, D] from all of them.
  void FromCoordinates(ConstMatrixF y, MatrixF x) const;
  // Queries x [T, D] as they meet coordinates: y [T, D] with y k'^T = x (k - mean)^T.
  void ToQueries(ConstMatrixF x, MatrixF y) const;

 private:
  ConstMatrixF forward_, back_;
  ConstMatrixF reflectors_;
  const float* mean_ = nullptr;
  int64_t width_ = 0;
};

// The bases of a head, as views of what the coordinates hold, in the host's memory; none where rows
// are stored as they are.
[[nodiscard]] HeadBasis KeyBasis(const LayerCoordinates& coordinates, int64_t head);
[[nodiscard]] HeadBasis ValueBasis(const LayerCoordinates& coordinates, int64_t head);

// Makes a prompt's coordinates of one head: the principal axes of its keys [T, D_k], unless they
// are latents, and values [T, D]. Heads may be set from several threads.
void SetHead(const LayerCoordinates& coordinates,
             int64_t head,
             ConstMatrixF keys,
             ConstMatrixF values);

}  // namespace kvc::runtime
