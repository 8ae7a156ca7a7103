#pragma once
// Checks that the entry points of attention share. Internal to kernels/cpu.

#include "kernels/attention.h"

namespace kvc::kernels {

// Throws kBadShape or kUnsupported, naming what does not fit. `key_width` and `value_width` are the
// head's: stored rows may be narrower; a rebuild fixes the latent's width.
void CheckRows(const RowBlock& keys,
               const RowBlock& values,
               const KeyRebuild* rebuild,
               int64_t key_width,
               int64_t value_width);

}  // namespace kvc::kernels
