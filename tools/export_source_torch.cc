// SourceLogits in a build with LibTorch.

#include "model/streamed.h"
#include "model/threads.h"
#include "tools/export_reference.h"

namespace kvc::tools {

std::optional<ReferenceLogits> SourceLogits(const Checkpoint& checkpoint, int num_threads) {
  model::SetThreads(num_threads);
  ReferenceLogits reference;
  reference.ids = VerificationIds(checkpoint.config());
  const torch::Tensor logits =
      model::SequenceLogits(checkpoint, reference.ids).contiguous();  // [T, V]
  reference.logits.assign(logits.data_ptr<float>(), logits.data_ptr<float>() + logits.numel());
  return reference;
}

}  // namespace kvc::tools
