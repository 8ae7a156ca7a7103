// SourceLogits in a build without LibTorch: there is nothing that could run the source.

#include "tools/export_reference.h"

namespace kvc::tools {

std::optional<ReferenceLogits> SourceLogits(const Checkpoint&, int) { return std::nullopt; }

}  // namespace kvc::tools
