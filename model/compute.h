#pragma once
// Where LibTorch computes, and how precisely.

#include <functional>
#include <string_view>

namespace kvc::model {

enum class Precision { kF32, kBF16 };
[[nodiscard]] std::string_view PrecisionName(Precision precision);  // "f32", "bf16"

struct Compute {
  bool cuda = false;  // the first CUDA device instead of the CPU
  // Of matrix products inside the layers while training. With kBF16 their operands are rounded to
  // bfloat16; weights, gradients of weights, the residual stream, norms, softmax, the head and the
  // optimizer stay float32.
  Precision precision = Precision::kF32;
};

// What --device and --precision name. Device "auto": a CUDA device where LibTorch sees one.
// Precision "auto": bf16 on a CUDA device (from compute capability 8.0 on it has units for it),
// else f32. Throws kDevice for "cuda" without a device, kUsage for "bf16" on the CPU.
[[nodiscard]] Compute ChooseCompute(std::string_view device, std::string_view precision);

// Runs `work`, which computes there. What LibTorch throws when a device fails or has too little
// memory becomes kDevice.
void RunOn(const Compute& compute, const std::function<void()>& work);

}  // namespace kvc::model
