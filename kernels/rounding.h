#pragma once
// Whether kernels of many rows may round their inputs.

namespace kvc::kernels {

// kToBF16: where weights, keys or values are stored in bf16 and the processor multiplies such
// numbers, what they are multiplied with is rounded to bf16; sums stay floats. kNone: never.
enum class InputRounding { kToBF16, kNone };

}  // namespace kvc::kernels
