#pragma once
// The golden checkpoints of tests/golden and what transformers computes for them.

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "core/checkpoint/checkpoint.h"
#include "core/io/safetensors.h"
#include "tests/support/golden_names.h"
#include "tests/support/paths.h"

namespace kvc::testing {

inline std::filesystem::path GoldenDirectory() {
  return kvc::testing::SourceRoot() / "tests/golden";
}

inline Checkpoint OpenGolden(const std::string& name) {
  return Checkpoint::Open(GoldenDirectory() / "models" / name);
}

// Elements of an int64 or float32 tensor.
template <class T>
std::vector<T> Elements(const SafetensorsReader& file, const std::string& name) {
  const TensorRef& tensor = file.Get(name);
  std::vector<T> values(tensor.num_elements());
  std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(T));
  return values;
}

inline std::vector<int32_t> TokenIds(const SafetensorsReader& file) {
  const std::vector<int64_t> ids = Elements<int64_t>(file, "ids");
  return {ids.begin(), ids.end()};
}

}  // namespace kvc::testing
