#include "tests/support/paths.h"

#include <cstdlib>

namespace kvc::testing {

std::filesystem::path SourceRoot() {
  // Where tests run on a machine that they were not built on (scripts/gpu_session.sh).
  const char* moved = std::getenv("KVC_TEST_SOURCE");
  return moved != nullptr ? moved : KVC_SOURCE_DIR;
}
std::filesystem::path BinaryRoot() { return KVC_BINARY_DIR; }

}  // namespace kvc::testing
