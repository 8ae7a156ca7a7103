#include "kernels/emulator/collectives.h"

#include <cmath>
#include <cstring>

#include "kernels/emulator/emulator.h"
#include "kernels/emulator/toolkit.h"

namespace kvc::emulator {
namespace {

template <class T>
T& As(void* operand) {
  return *static_cast<T*>(operand);
}

float Float(__nv_bfloat16 x) { return __bfloat162float(x); }
float Float(__half x) { return __half2float(x); }

// Element `half` (0: low) of a pair.
template <class T>
float Element(uint32_t pair, int half) {
  const auto bits = static_cast<uint16_t>(pair >> (16 * half));
  T element;
  std::memcpy(&element, &bits, sizeof(element));
  return Float(element);
}

uint32_t Pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

// combine over the butterfly of `mask`, bit by bit from the highest.
template <class Combine>
void Butterfly(void** operands, int mask, Combine combine) {
  float value[kWarpLanes];
  float next[kWarpLanes];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    value[lane] = As<float>(operands[lane]);
  }
  for (int bit = kWarpLanes / 2; bit > 0; bit /= 2) {
    if ((mask & bit) == 0) {
      continue;
    }
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      next[lane] = combine(value[lane], value[lane ^ bit]);
    }
    std::memcpy(value, next, sizeof(value));
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    As<float>(operands[lane]) = value[lane];
  }
}

// Lane l gets the elements 2 (l % 4), + 1 of row l / 4 of each matrix, or of its transpose.
template <bool transposed>
void LoadMatrix(void** operands) {
  for (int m = 0; m < 4; ++m) {
    uint16_t x[8][8];
    for (int i = 0; i < 8; ++i) {
      std::memcpy(x[i], As<LoadMatrixOperand>(operands[8 * m + i]).row, sizeof(x[i]));
    }
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      const int i = lane / 4;
      const int j = 2 * (lane % 4);
      As<LoadMatrixOperand>(operands[lane]).result[m] =
          transposed ? Pair(x[j][i], x[j + 1][i]) : Pair(x[i][j], x[i][j + 1]);
    }
  }
}

// Lane 4 g + t holds, each register a pair along k:
//   a0 (g, 2t)  a1 (g + 8, 2t)  a2 (g, 2t + 8)  a3 (g + 8, 2t + 8)   of a (m, k)
//   b0 (2t, g)  b1 (2t + 8, g)                                       of b (k, n)
template <class T>
void Gather(void** operands, float (&a)[16][16], float (&b)[16][8]) {
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const auto& in = As<ProductOperand>(operands[lane]);
    const int g = lane / 4;
    const int t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      for (int r = 0; r < 4; ++r) {
        a[g + 8 * (r % 2)][2 * t + half + 8 * (r / 2)] = Element<T>(in.a[r], half);
      }
      for (int r = 0; r < 2; ++r) {
        b[2 * t + half + 8 * r][g] = Element<T>(in.b[r], half);
      }
    }
  }
}

//   d0 (g, 2t)  d1 (g, 2t + 1)  d2 (g + 8, 2t)  d3 (g + 8, 2t + 1)   of d (m, n)
template <class T>
void Product(void** operands) {
  float a[16][16];
  float b[16][8];
  Gather<T>(operands, a, b);
  for (int m = 0; m < 16; ++m) {
    float sum[8] = {};
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < 8; ++n) {
        sum[n] += a[m][k] * b[k][n];
      }
    }
    for (int t = 0; t < 4; ++t) {
      float* d = As<ProductOperand>(operands[4 * (m % 8) + t]).d + 2 * (m / 8);
      d[0] += sum[2 * t];
      d[1] += sum[2 * t + 1];
    }
  }
}

}  // namespace

void FinishSync(void** /*operands*/) {}

void FinishShuffle(void** operands) {
  uint32_t value[kWarpLanes];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const int from = As<ShuffleOperand>(operands[lane]).from & (kWarpLanes - 1);
    value[lane] = As<ShuffleOperand>(operands[from]).value;
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    As<ShuffleOperand>(operands[lane]).value = value[lane];
  }
}

void FinishBallot(void** operands) {
  uint32_t lanes = 0;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    lanes |= (As<uint32_t>(operands[lane]) != 0 ? 1U : 0U) << lane;
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    As<uint32_t>(operands[lane]) = lanes;
  }
}

template <int mask>
void FinishSum(void** operands) {
  Butterfly(operands, mask, [](float a, float b) { return a + b; });
}
template <int mask>
void FinishMax(void** operands) {
  Butterfly(operands, mask, [](float a, float b) { return std::fmax(a, b); });
}
template void FinishSum<31>(void**);
template void FinishMax<31>(void**);
template void FinishSum<15>(void**);
template void FinishMax<15>(void**);
template void FinishSum<28>(void**);
template void FinishSum<3>(void**);
template void FinishMax<28>(void**);
template void FinishMax<3>(void**);

void FinishLoadMatrix(void** operands) { LoadMatrix<false>(operands); }
void FinishLoadMatrixTransposed(void** operands) { LoadMatrix<true>(operands); }

void FinishTranspose(void** operands) {
  uint16_t x[8][8];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    std::memcpy(&x[lane / 4][2 * (lane % 4)], operands[lane], sizeof(uint32_t));
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const int i = lane / 4;
    const int j = 2 * (lane % 4);
    As<uint32_t>(operands[lane]) = Pair(x[j][i], x[j + 1][i]);
  }
}

void FinishProductF16(void** operands) { Product<__half>(operands); }
void FinishProductBF16(void** operands) { Product<__nv_bfloat16>(operands); }

}  // namespace kvc::emulator
