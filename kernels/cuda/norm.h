#pragma once
// Normalisation of rows, or of every head of each row, on the device. Sums are in float, in an
// order that depends on the width alone. Nothing waits for the stream.

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/rows.h"

namespace kvc::cuda {

// For each of `heads` consecutive slices z of each row: z / sqrt(mean(z^2) + epsilon) * weight.
// x, y [T, heads * D], may alias; weight [D] on the device.
void RmsNorm(const ConstRows& x,
             int64_t heads,
             const float* weight,
             float epsilon,
             const Rows& y,
             StreamHandle stream);
// (z - mean) / sqrt(var + epsilon) * weight + bias; bias [D], or null.
void LayerNorm(const ConstRows& x,
               int64_t heads,
               const float* weight,
               const float* bias,
               float epsilon,
               const Rows& y,
               StreamHandle stream);

// Writes the mean over the rows of |x_t|^2 to *mean on the device, summed in double: x [T, E] in
// f32, 0 for no rows. Throws kUnsupported for other dtypes.
void MeanSquaredNorm(const ConstRows& x, double* mean, StreamHandle stream);

}  // namespace kvc::cuda
