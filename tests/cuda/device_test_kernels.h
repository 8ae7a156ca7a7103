#pragma once
// Kernels that run one function of device.cuh on given operands, for device_test.cc. Pointers are
// the device's.

#include <cstdint>

#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

// d += a b in fragments: a [32][4], b [32][2], d [32][4], pairs of 16-bit floats and floats.
void RunProduct(bool f16, const uint32_t* a, const uint32_t* b, float* d, StreamHandle stream);
// tile [32][8] of 16-bit elements, row l given by lane l; plain, transposed [32][4]; moved [32]:
// the transpose of plain[.][0].
void RunLoadMatrices(const uint16_t* tile,
                     uint32_t* plain,
                     uint32_t* transposed,
                     uint32_t* moved,
                     StreamHandle stream);
// out [32][6]: x of lane 7, x of lane ^ 4, ballot of odd x, sum, sum over mask 28, maximum over 28.
void RunExchange(const float* x, float* out, StreamHandle stream);
// Two producer warps and two consumer warps hand over `rounds` values each by named barriers:
// out [rounds][2] = 10 round + warp.
void RunNamedBarriers(int* out, int rounds, StreamHandle stream);
// Copies rows of 16 bytes [count, 16 B] through shared memory, `kStages` groups ahead.
void RunCopies(const void* from, void* to, int count, StreamHandle stream);
// Every block writes its number into parts; the last to arrive sums them into *sum and counts
// itself in *times. *arrived is zero before and after.
void RunLastBlock(
    int blocks, float* parts, int* arrived, float* sum, int* times, StreamHandle stream);
// *x = 2 *x + add.
void RunStep(int* x, int add, StreamHandle stream);

}  // namespace kvc::cuda
