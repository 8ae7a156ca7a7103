#include "scorers/scorer.h"

#include "core/base/error.h"
#include "scorers/factories.h"

namespace kvc::scorers {

std::unique_ptr<Scorer> Scorer::Create(const ScorerSpec& spec) {
  switch (spec.kind) {
    case ScorerKind::kSnapKv:
      return MakeSnapKv(spec.options);
    case ScorerKind::kExpectedAttention:
      return MakeExpectedAttention(spec.options);
    case ScorerKind::kKeyDiff:
      return MakeKeyDiff();
    case ScorerKind::kKnorm:
      return MakeKnorm();
    case ScorerKind::kStreaming:
      return MakeStreaming();
    case ScorerKind::kOutputError:
      return MakeOutputError(spec.options);
  }
  KVC_THROW(kInternal, "scorer: expected an enumerator that has a scorer");
}

}  // namespace kvc::scorers
