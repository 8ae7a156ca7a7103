// The graph of a bundle, model.onnx, beside weights that are all zero.

#include <string>

#include "runtime/load/onnx_loader.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(onnx) {
  static const std::filesystem::path weights =
      kvc::fuzz::WrittenFile("model.onnx.data", std::string(100'000, '\0'));
  (void)kvc::runtime::LoadOnnx(kvc::fuzz::WrittenFile("model.onnx", bytes));
}
