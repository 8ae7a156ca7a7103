#include "factorize/thin_reader.h"

#include <algorithm>
#include <string>

#include "core/base/error.h"

namespace kvc::factorize {
namespace {

// Tensors that factors replace or add, by what their names contain.
bool BelongsToKeys(const std::string& name) {
  static constexpr const char* kParts[] = {"q_proj",   "k_proj",   "k_rebuild",
                                           "k_reduce", "q_reduce", "c_attn"};
  return std::any_of(std::begin(kParts), std::end(kParts),
                     [&](const char* part) { return name.find(part) != std::string::npos; });
}

}  // namespace

std::vector<LayerFactors> ReadFactors(const Checkpoint& thin) {
  const ModelConfig& config = thin.config();
  const KeyLayout layout = config.keys.layout;
  const bool thin_bias = layout == KeyLayout::kAbsorb || layout == KeyLayout::kRopePairs;
  std::vector<LayerFactors> factors(config.num_layers);
  for (int64_t l = 0; l < config.num_layers; ++l) {
    LayerFactors& layer = factors[l];
    const auto load = [&](Role role) {
      return thin.Has(role, l) ? thin.Load(role, l) : std::vector<float>();
    };
    layer.ranks = config.keys.ranks[l];
    if (layout == KeyLayout::kRopePairs) layer.pairs = config.keys.pairs[l];
    layer.q = load(Role::kQ);
    layer.k = load(Role::kK);
    if (thin_bias) layer.q_bias = load(Role::kQBias);
    if (layout == KeyLayout::kRopePairs) layer.k_bias = load(Role::kKBias);
    layer.k_rebuild = load(Role::kKRebuild);
    layer.k_reduce = load(Role::kKReduce);
    layer.k_reduce_bias = load(Role::kKReduceBias);
    layer.q_reduce = load(Role::kQReduce);
    thin.ReleaseLayer(l);
  }
  return factors;
}

void CheckSameModel(const Checkpoint& source, const Checkpoint& thin) {
  KVC_CHECK(source.config().family == thin.config().family &&
                source.config().num_layers == thin.config().num_layers,
            kBadInput, "--source: expected a model of {} layers of the family {}, got {} of {}",
            thin.config().num_layers, FamilyName(thin.config().family), source.config().num_layers,
            FamilyName(source.config().family));
  for (const std::string& name : source.tensors().names()) {
    if (BelongsToKeys(name)) continue;
    KVC_CHECK(thin.tensors().Contains(name) && std::ranges::equal(thin.tensors().Get(name).bytes,
                                                                  source.tensors().Get(name).bytes),
              kBadInput,
              "--source: {}: expected the bytes of the thin model's, got others; name the model "
              "that it was made from",
              name);
    source.tensors().Release(name);
    thin.tensors().Release(name);
  }
}

}  // namespace kvc::factorize
