#include "core/checkpoint/weight_layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/error.h"

namespace kvc {
namespace {

// GPT-2's projections are Conv1D: [in, out] in the file.
bool IsConv1D(Role role) {
  return role == Role::kQ || role == Role::kK || role == Role::kV || role == Role::kO ||
         role == Role::kUp || role == Role::kDown;
}

bool IsFused(Role role) {
  return role == Role::kQ || role == Role::kK || role == Role::kV || role == Role::kQBias ||
         role == Role::kKBias || role == Role::kVBias;
}

int64_t SumOfRanks(const ModelConfig& config, int64_t layer) {
  const auto& ranks = config.keys.ranks.at(static_cast<size_t>(layer));
  return std::accumulate(ranks.begin(), ranks.end(), int64_t{0});
}

// The rows of the query projection. Absorbed queries and those of rotation pairs are as wide as the
// keys of the group that they meet.
int64_t QueryRows(const ModelConfig& config, int64_t layer) {
  const KeyLayout layout = config.keys.layout;
  return layout == KeyLayout::kAbsorb || layout == KeyLayout::kRopePairs
             ? config.group_size() * SumOfRanks(config, layer)
             : config.num_heads * config.head_width;
}

// The rows of the key projection: what a layer caches for a token, unless it is reduced later.
int64_t KeyRows(const ModelConfig& config, int64_t layer) {
  return config.thin() && config.keys.layout != KeyLayout::kPostRope
             ? SumOfRanks(config, layer)
             : config.num_kv_heads * config.head_width;
}

// The rows of a role inside GPT-2's fused c_attn: the first, their number, and all rows of c_attn.
struct FusedSlice {
  int64_t begin = 0;
  int64_t count = 0;
  int64_t total = 0;
};

FusedSlice SliceOf(const ModelConfig& config, Role role, int64_t layer) {
  const int64_t q = QueryRows(config, layer);
  const int64_t k = KeyRows(config, layer);
  const int64_t v = config.num_kv_heads * config.head_width;
  if (role == Role::kQ || role == Role::kQBias) {
    return {0, q, q + k + v};
  }
  if (role == Role::kK || role == Role::kKBias) {
    return {q, k, q + k + v};
  }
  return {q + k, v, q + k + v};
}

}  // namespace

const RoleRow& RowOf(Role role) {
  const auto* row =
      std::find_if(kRoles.begin(), kRoles.end(), [&](const RoleRow& r) { return r.role == role; });
  KVC_CHECK(row != kRoles.end(), kInternal, "role: expected one of the enumeration, got {}",
            static_cast<int>(role));
  return *row;
}

const char* LocalName(const ModelConfig& config, Role role) {
  if (config.norm_place == NormPlace::kBehind) {
    if (role == Role::kAttnNorm) return ".post_attention_layernorm.weight";
    if (role == Role::kMlpNorm) return ".post_feedforward_layernorm.weight";
  }
  const RoleRow& row = RowOf(role);
  return config.family == Family::kGpt2 ? row.gpt2 : row.llama;
}

bool IsOuter(Role role) {
  return role == Role::kEmbedding || role == Role::kPositionEmbedding || role == Role::kFinalNorm ||
         role == Role::kFinalNormBias || role == Role::kLmHead;
}

bool HasRole(const ModelConfig& config, Role role) {
  switch (role) {
    case Role::kPositionEmbedding:
      return !config.has_rope;
    case Role::kFinalNormBias:
    case Role::kAttnNormBias:
    case Role::kMlpNormBias:
      return config.norm == NormKind::kLayer;
    case Role::kQBias:
    case Role::kVBias:
      return config.qkv_bias;
    case Role::kKBias:
      return config.qkv_bias && config.keys.layout != KeyLayout::kAbsorb;
    case Role::kOBias:
      return config.out_bias;
    case Role::kQNorm:
    case Role::kKNorm:
      return config.qk_norm != QkNorm::kNone;
    case Role::kKRebuild:
      return config.keys.layout == KeyLayout::kLatent;
    case Role::kKReduce:
    case Role::kKReduceBias:
    case Role::kQReduce:
      return config.keys.layout == KeyLayout::kPostRope;
    case Role::kGate:
      return config.gated;
    case Role::kGateBias:
      return config.gated && config.mlp_bias;
    case Role::kUpBias:
    case Role::kDownBias:
      return config.mlp_bias;
    default:
      return true;
  }
}

std::vector<int64_t> ShapeOf(const ModelConfig& config, Role role, int64_t layer) {
  const int64_t width = config.model_width;
  const int64_t value_rows = config.num_kv_heads * config.head_width;
  switch (role) {
    case Role::kEmbedding:
    case Role::kLmHead:
      return {config.vocab_size, width};
    case Role::kPositionEmbedding:
      return {config.context_length, width};
    case Role::kQ:
      return {QueryRows(config, layer), width};
    case Role::kQBias:
      return {QueryRows(config, layer)};
    case Role::kK:
      return {KeyRows(config, layer), width};
    case Role::kKBias:  // of a latent's rebuilt keys
      return {config.keys.layout == KeyLayout::kLatent ? value_rows : KeyRows(config, layer)};
    case Role::kVBias:
      return {value_rows};
    case Role::kV:
      return {value_rows, width};
    case Role::kO:
      return {width, config.num_heads * config.head_width};
    case Role::kQNorm:
    case Role::kKNorm: {
      const bool whole = config.qk_norm == QkNorm::kWhole;
      const int64_t heads = role == Role::kQNorm ? config.num_heads : config.num_kv_heads;
      return {(whole ? heads : 1) * config.head_width};
    }
    case Role::kKRebuild: {
      const auto& ranks = config.keys.ranks.at(static_cast<size_t>(layer));
      return {value_rows, *std::max_element(ranks.begin(), ranks.end())};
    }
    case Role::kKReduce:
    case Role::kQReduce:
      return {SumOfRanks(config, layer), config.head_width};
    case Role::kKReduceBias:
      return {SumOfRanks(config, layer)};
    case Role::kGate:
    case Role::kUp:
      return {config.mlp_width, width};
    case Role::kGateBias:
    case Role::kUpBias:
      return {config.mlp_width};
    case Role::kDown:
      return {width, config.mlp_width};
    default:
      return {width};  // norms and their biases, biases of outputs
  }
}

std::vector<int64_t> StoredShape(const ModelConfig& config, Role role, int64_t layer) {
  std::vector<int64_t> shape = ShapeOf(config, role, layer);
  if (config.family != Family::kGpt2) {
    return shape;
  }
  if (IsFused(role)) {
    shape[0] = SliceOf(config, role, layer).total;
  }
  if (IsConv1D(role)) {
    std::swap(shape[0], shape[1]);
  }
  return shape;
}

WeightPlace PlaceInTensor(const ModelConfig& config, Role role, int64_t layer) {
  WeightPlace place;
  if (config.family != Family::kGpt2) {
    return place;
  }
  place.transposed = IsConv1D(role);
  if (IsFused(role)) {
    const FusedSlice slice = SliceOf(config, role, layer);
    place.out_begin = slice.begin;
    place.out_count = slice.count;
  }
  return place;
}

}  // namespace kvc
