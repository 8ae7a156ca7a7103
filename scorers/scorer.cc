#include "scorers/scorer.h"

#include "core/error.h"
#include "scorers/factories.h"

namespace kvc::scorers {

std::unique_ptr<Scorer> Scorer::Create(ScorerKind kind, const ScorerOptions& options) {
  switch (kind) {
    case ScorerKind::kSnapKv:
      return MakeSnapKv(options);
    case ScorerKind::kExpectedAttention:
      return MakeExpectedAttention(options);
    case ScorerKind::kKeyDiff:
      return MakeKeyDiff();
    case ScorerKind::kKnorm:
      return MakeKnorm();
    case ScorerKind::kStreaming:
      return MakeStreaming();
    case ScorerKind::kOutputError:
      break;
  }
  KVC_THROW(kUnsupported,
            "scorer: expected snapkv, expected-attention, keydiff, knorm or streaming, got ",
            ScorerName(kind),
            ", which this version does not have");
}

}  // namespace kvc::scorers
