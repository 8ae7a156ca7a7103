#pragma once
// The arithmetic of warp instructions: what becomes of the operands of all 32 lanes once they have
// met (MeetWarp). Layouts are those of the PTX ISA, sections "mma.m16n8k16", "ldmatrix" and
// "movmatrix"; tests/emulator compares them with the tables.

#include <cstdint>

namespace kvc::emulator {

struct ShuffleOperand {
  uint32_t value;  // in and out
  int from;        // lane
};
// Rows of four 8x8 matrices of 16-bit elements: lane l gives row l % 8 of matrix l / 8.
struct LoadMatrixOperand {
  uint32_t* result;  // [4]
  const void* row;   // 16 bytes
};
// d [16, 8] += a [16, 16] b [16, 8] in fragments.
struct ProductOperand {
  float* d;           // [4]
  const uint32_t* a;  // [4]
  const uint32_t* b;  // [2]
};

void FinishSync(void** operands);
void FinishShuffle(void** operands);
// uint32_t in (zero or not), the mask of lanes out.
void FinishBallot(void** operands);
// float in, its sum or maximum over the lanes that differ in bits of `mask` out, by the butterfly
// that a device runs: bits 16, 8, ..., 1 in this order.
template <int mask>
void FinishSum(void** operands);
template <int mask>
void FinishMax(void** operands);
// ldmatrix.x4 and its .trans form; movmatrix.trans of a uint32_t.
void FinishLoadMatrix(void** operands);
void FinishLoadMatrixTransposed(void** operands);
void FinishTranspose(void** operands);
// mma.m16n8k16 with float sums. The order of a device's sum is not specified; this one is by k.
void FinishProductF16(void** operands);
void FinishProductBF16(void** operands);

}  // namespace kvc::emulator
