#pragma once
// Device and precision of LibTorch's computations.

#include <functional>
#include <string_view>

namespace kvc::model {

enum class Precision { kF32, kBF16 };
[[nodiscard]] std::string_view PrecisionName(Precision precision);  // "f32", "bf16"

struct Compute {
  bool cuda = false;  // the first CUDA device instead of the CPU
  // Precision of the matrix products inside the layers while training. With kBF16 their operands
  // are rounded to bfloat16; weights, gradients of weights, the residual stream, norms, softmax,
  // the head and the optimizer stay float32.
  Precision precision = Precision::kF32;
};

// Resolves the values of --device and --precision. Device "auto" is a CUDA device if LibTorch sees
// one. Precision "auto" is bf16 on a CUDA device (compute capability 8.0 and above has units for
// it), otherwise f32. Throws kDevice for "cuda" without a device, kUsage for "bf16" on the CPU.
[[nodiscard]] Compute ChooseCompute(std::string_view device, std::string_view precision);

// Runs `work`, which computes on that device. LibTorch's exceptions for a device that fails or
// lacks memory become kDevice.
void RunOn(const Compute& compute, const std::function<void()>& work);

}  // namespace kvc::model
