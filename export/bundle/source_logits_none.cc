// SourceLogits in a build without LibTorch: there is nothing that could run the source.

#include "export/bundle/reference_logits.h"

namespace kvc::bundle {

std::optional<ReferenceLogits> SourceLogits(const Checkpoint&, int) { return std::nullopt; }

}  // namespace kvc::bundle
