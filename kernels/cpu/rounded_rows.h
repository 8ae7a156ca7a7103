#pragma once
// Row functions of RoundedPrefillAttention, compiled for each instruction set. Internal to
// kernels/cpu.

#include <cstdint>

namespace kvc::kernels {

// What a query row knows of the keys so far.
struct RowState {
  float maximum = 0.0F;  // of its logits
  float sum = 0.0F;      // of exp(logit - maximum)
};

// The keys of a tile that a row attends to: hidden .. seen - 1 of `count`.
struct SeenKeys {
  int64_t hidden = 0;
  int64_t seen = 0;
  int64_t count = 0;
};

// Writes the probabilities exp(s - maximum) of the keys that are seen as bf16, zeros for the others
// up to `count`, a multiple of 64; updates the state, whose sum is that of the rounded
// probabilities. Returns the factor by which the output so far must shrink.
float ProbabilitiesOf(const float* scores, const SeenKeys& keys, RowState& state, uint16_t* target);

// row = row * factor + more, all [count].
void ShrinkAndAdd(float* row, float factor, const float* more, int64_t count);

}  // namespace kvc::kernels
