#include <fstream>

#include "tests/fuzz/fuzz_target.h"

namespace kvc::fuzz {

std::filesystem::path WrittenFile(const char* name, std::string_view bytes) {
  std::filesystem::path path = Directory() / name;
  // Without WriteFile's care for power cuts, which costs milliseconds.
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  return path;
}

}  // namespace kvc::fuzz
