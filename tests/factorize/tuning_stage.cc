#include "tests/factorize/tuning_stage.h"

#include "factorize/closed_forms.h"

namespace kvc::factorize::testing {

FamilyKeys HalfWidth(const Checkpoint& source,
                     KeyLayout layout,
                     const std::vector<std::vector<int32_t>>& windows) {
  FactorRequest request;
  request.layout = layout;
  request.num_groups = layout == KeyLayout::kLatent ? 1 : source.config().num_kv_heads;
  const bool by_logits = layout == KeyLayout::kPostRope;
  request.objective = by_logits ? Objective::kLogit : Objective::kWeight;
  request.rank = ParseRank("50%", "--rank");
  NoProgress progress;
  const auto svd = linalg::Svd::Create(linalg::SvdBackend::kEigen);
  auto factors = FactorLayers(source, request, by_logits ? windows : Windows(), *svd, progress);
  KeyFactors keys = MakeKeys(request, factors);
  return {std::move(keys), std::move(factors)};
}

}  // namespace kvc::factorize::testing
