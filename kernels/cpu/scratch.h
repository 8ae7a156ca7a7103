#pragma once
// Scratch buffers of a thread. They live from one call of a kernel to the next, so that a kernel
// allocates nothing in the steady state and its pages are warm. Each thread has buffers of its own.
// Internal to kernels/cpu.

#include <cstdint>

namespace kvc::kernels {

// The uses of buffers; two uses never share one.
enum class ScratchUse {
  kPanels,         // B of a product
  kStrip,          // a few rows of A, or a panel of latents
  kLatentRows,     // latents in few bits, as float
  kAngles,         // cosines and sines of a panel of tokens
  kScores,         // logits and probabilities of a tile
  kKeys,           // rebuilt keys of a panel
  kShrink,         // a factor for each query
  kQueries,        // query rows of the current heads, scaled
  kCodeQueries,    // decode: queries in whole numbers
  kDigits,         // decode: probabilities of a tile in whole numbers
  kPartials,       // decode: results of the parts of a step, for the merge
  kPrefillKeys,    // prefill: panels of the current keys, all heads
  kPrefillValues,  // prefill: panels of the current values
  kPrefillStates,  // prefill: running maximum and sum of each query row
  kLibrary,        // what oneDNN asks for
  kRounded,        // rows of x as bf16, for all threads
  kWide,           // rows of W as floats
  kBlock,          // a block of y
  kCount
};

// A buffer of at least `count` floats, 64-byte aligned and of unspecified content. It is valid
// until this thread's next call for the same use. Buffers grow and never shrink.
float* Scratch(ScratchUse use, int64_t count);

}  // namespace kvc::kernels
