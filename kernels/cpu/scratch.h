#pragma once
// Buffers that a thread keeps from one call to the next, so that a kernel allocates nothing in the
// steady state and its pages are warm. Internal to kernels/cpu.

#include <cstdint>

namespace kvc::kernels {

// What a buffer holds; two uses never share one.
enum class ScratchUse {
  kPanels,         // B of a product
  kStrip,          // a few rows of A, or a panel of latents
  kAngles,         // cosines and sines of a panel of tokens
  kScores,         // logits and probabilities of a tile
  kKeys,           // rebuilt keys of a panel
  kShrink,         // a factor for each query
  kQueries,        // query rows of the heads in work, scaled
  kPartials,       // decode: what the parts of a step hand to the merge
  kPrefillKeys,    // prefill: panels of the keys in work, all heads
  kPrefillValues,  // the same of values
  kPrefillStates,  // prefill: running maximum and sum of each query row
  kCount
};

// At least `count` floats, 64-byte aligned, of unspecified content, until this thread's next call
// for the same use. Grows, never shrinks.
float* Scratch(ScratchUse use, int64_t count);

}  // namespace kvc::kernels
