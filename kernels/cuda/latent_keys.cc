#include "kernels/cuda/latent_keys.h"

#include <cstring>

#include "core/base/dtype.h"
#include "core/base/error.h"

namespace kvc::cuda {
namespace {

// The dimension of a place; -1: none.
int64_t DimensionOf(const LatentFactors& in, int64_t place) {
  const int64_t turning = (in.half + 7) / 8 * 16;
  if (place >= turning) {
    const int64_t d = 2 * in.half + place - turning;
    return d < in.width ? d : -1;
  }
  const int64_t pair = place / 16 * 8 + place % 8;
  if (pair >= in.half) return -1;
  return place % 16 < 8 ? pair : pair + in.half;
}

float ElementOf(const LatentFactors& in, int64_t place, int64_t column) {
  const int64_t d = DimensionOf(in, place);
  return d < 0 || column >= in.rank ? 0.0F : in.matrix[d * in.matrix_stride + column];
}

uint32_t BitsOf(float x) {
  uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

// A lane's fragments of one step and 16 columns: words of high halves, and of low ones.
void PackLane(const LatentFactors& in, int64_t step, int64_t k, int64_t lane, uint32_t* high) {
  constexpr int64_t kLowWords = int64_t{4} * 32;  // behind the high ones
  for (int64_t word = 0; word < 4; ++word) {
    const int64_t place = 16 * step + word / 2 * 8 + lane / 4;
    const int64_t column = 16 * k + 4 * (lane % 4) + 2 * (word % 2);
    uint32_t halves[2] = {};
    for (int64_t j = 0; j < 2; ++j) {
      const float x = ElementOf(in, place, column + j);
      const uint16_t rounded = FloatToBF16(x);
      halves[0] |= uint32_t{rounded} << (16 * j);
      halves[1] |= uint32_t{FloatToBF16(x - BF16ToFloat(rounded))} << (16 * j);
    }
    high[word] = halves[0];
    high[kLowWords + word] = halves[1];
  }
}

}  // namespace

std::vector<uint32_t> PackLatentKeys(const LatentFactors& in) {
  KVC_CHECK(in.rank >= 1 && in.rank <= in.matrix_stride && in.width >= 1 && in.half >= 0 &&
                2 * in.half <= in.width,
            kBadShape,
            "latent keys: expected 1 to {} columns and at most {} pairs to turn, got {} and {}",
            in.matrix_stride, in.width / 2, in.rank, in.half);
  const int64_t places = LatentPlaces(in.width, in.half);
  const int64_t columns = (in.rank + 15) / 16;  // 16 each
  std::vector<uint32_t> packed(static_cast<size_t>(PackedLatentWords(in.rank, in.width, in.half)));
  uint32_t* next = packed.data();
  for (int64_t step = 0; step < places / 16; ++step) {
    for (int64_t k = 0; k < columns; ++k, next += int64_t{8} * 32) {
      for (int64_t lane = 0; lane < 32; ++lane) PackLane(in, step, k, lane, next + 4 * lane);
    }
  }
  for (int64_t place = 0; place < places; ++place, ++next) {
    const int64_t d = DimensionOf(in, place);
    next[0] = BitsOf(d >= 0 && in.bias != nullptr ? in.bias[d] : 0.0F);
    next[places] = BitsOf(d >= 0 && in.norm_weight != nullptr ? in.norm_weight[d] : 1.0F);
    next[2 * places] = static_cast<uint32_t>(static_cast<int32_t>(d));
  }
  return packed;
}

}  // namespace kvc::cuda
