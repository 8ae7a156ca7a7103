#include "tests/support/paths.h"

namespace kvc::testing {

std::filesystem::path SourceRoot() { return KVC_SOURCE_DIR; }
std::filesystem::path BinaryRoot() { return KVC_BINARY_DIR; }

}  // namespace kvc::testing
