// A safetensors file: its header, and every byte of its tensors.

#include "core/io/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(safetensors) {
  const auto reader =
      kvc::SafetensorsReader::OpenFile(kvc::fuzz::WrittenFile("model.safetensors", bytes));
  unsigned sum = 0;
  for (const std::string& name : reader.names()) {
    for (const std::byte byte : reader.Get(name).bytes) sum += static_cast<unsigned>(byte);
  }
  [[maybe_unused]] static volatile unsigned kept;
  kept = sum;
}
