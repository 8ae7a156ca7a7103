#include "export/onnx/stored_weight.h"

#include "export/onnx/cache_functions.h"

namespace kvc::onnx_export {
namespace {

// Returns true if the role's rows are the thin ones of each head, to be padded to the layer's
// width.
bool HasThinRows(KeyLayout layout, Role role) {
  const bool latent = layout == KeyLayout::kLatent;
  const bool absorbed = layout == KeyLayout::kAbsorb;
  const bool paired = layout == KeyLayout::kRopePairs;
  switch (role) {
    case Role::kQ:
    case Role::kQBias:
      return absorbed || paired;
    case Role::kK:
      return latent || absorbed || paired;
    case Role::kKBias:
      return paired;
    case Role::kKReduce:
    case Role::kKReduceBias:
    case Role::kQReduce:
      return true;
    default:
      return false;
  }
}

bool IsFactor(Role role) {
  return role == Role::kKRebuild || role == Role::kKReduce || role == Role::kQReduce;
}

}  // namespace

Weight DescribeWeight(
    const Checkpoint& checkpoint, const std::string& name, Role role, int64_t layer, DType dtype) {
  const ModelConfig& config = checkpoint.config();
  Weight weight;
  weight.name = name;
  weight.role = role;
  weight.layer = layer;
  weight.dims = checkpoint.Shape(role, layer);
  weight.dtype = weight.dims.size() == 2 && !IsFactor(role) ? dtype : DType::kF32;
  if (HasThinRows(config.keys.layout, role)) {
    const bool query = role == Role::kQ || role == Role::kQBias;
    weight.kind = WeightKind::kPaddedRows;
    weight.stride = PaddedKeyWidth(config, layer);
    const int64_t blocks = query ? config.num_heads : config.num_key_groups();
    const int64_t share = blocks / config.num_key_groups();  // query heads of a group, or 1
    for (int64_t block = 0; block < blocks; ++block) {
      weight.ranks.push_back(config.key_width(layer, block / share));
    }
    weight.dims[0] = blocks * weight.stride;
  } else if (role == Role::kKRebuild) {
    weight.kind = WeightKind::kRebuild;
    weight.stride = weight.dims[1];
    for (int64_t group = 0; group < config.num_key_groups(); ++group) {
      weight.ranks.push_back(config.key_width(layer, group));
    }
  }
  return weight;
}

}  // namespace kvc::onnx_export
