#pragma once
// The weights of each model family: their names, shapes and storage. Used by checkpoint.cc, and by
// code that writes a checkpoint.

#include <array>
#include <cstdint>
#include <vector>

#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/model_config.h"

namespace kvc {

// A role's tensor names in GPT-2 and in the Llama families, without prefix. A name that begins with
// a dot belongs to a layer; an empty name says that the family does not have the role.
struct RoleRow {
  Role role;
  const char* gpt2;
  const char* llama;
};

inline constexpr std::array<RoleRow, 29> kRoles = {{
    {Role::kEmbedding, "wte.weight", "embed_tokens.weight"},
    {Role::kPositionEmbedding, "wpe.weight", ""},
    {Role::kFinalNorm, "ln_f.weight", "norm.weight"},
    {Role::kFinalNormBias, "ln_f.bias", "norm.bias"},
    {Role::kLmHead, "lm_head.weight", "lm_head.weight"},
    {Role::kAttnNorm, ".ln_1.weight", ".input_layernorm.weight"},
    {Role::kAttnNormBias, ".ln_1.bias", ".input_layernorm.bias"},
    {Role::kQ, ".attn.c_attn.weight", ".self_attn.q_proj.weight"},
    {Role::kQBias, ".attn.c_attn.bias", ".self_attn.q_proj.bias"},
    {Role::kK, ".attn.c_attn.weight", ".self_attn.k_proj.weight"},
    {Role::kKBias, ".attn.c_attn.bias", ".self_attn.k_proj.bias"},
    {Role::kV, ".attn.c_attn.weight", ".self_attn.v_proj.weight"},
    {Role::kVBias, ".attn.c_attn.bias", ".self_attn.v_proj.bias"},
    {Role::kO, ".attn.c_proj.weight", ".self_attn.o_proj.weight"},
    {Role::kOBias, ".attn.c_proj.bias", ".self_attn.o_proj.bias"},
    {Role::kQNorm, "", ".self_attn.q_norm.weight"},
    {Role::kKNorm, "", ".self_attn.k_norm.weight"},
    {Role::kKRebuild, "", ".self_attn.k_rebuild.weight"},
    {Role::kKReduce, "", ".self_attn.k_reduce.weight"},
    {Role::kKReduceBias, "", ".self_attn.k_reduce.bias"},
    {Role::kQReduce, "", ".self_attn.q_reduce.weight"},
    {Role::kMlpNorm, ".ln_2.weight", ".post_attention_layernorm.weight"},
    {Role::kMlpNormBias, ".ln_2.bias", ".post_attention_layernorm.bias"},
    {Role::kGate, "", ".mlp.gate_proj.weight"},
    {Role::kGateBias, "", ".mlp.gate_proj.bias"},
    {Role::kUp, ".mlp.c_fc.weight", ".mlp.up_proj.weight"},
    {Role::kUpBias, ".mlp.c_fc.bias", ".mlp.up_proj.bias"},
    {Role::kDown, ".mlp.c_proj.weight", ".mlp.down_proj.weight"},
    {Role::kDownBias, ".mlp.c_proj.bias", ".mlp.down_proj.bias"},
}};

[[nodiscard]] const RoleRow& RowOf(Role role);
// The name of a role that the model has, without prefix and, of a layer's, the layer's number.
[[nodiscard]] const char* LocalName(const ModelConfig& config, Role role);
// True when the role belongs to the whole model instead of a layer.
[[nodiscard]] bool IsOuter(Role role);
[[nodiscard]] bool HasRole(const ModelConfig& config, Role role);
// The shape [out, in] or [out] of the role, not of the tensor that may hold it fused or transposed.
[[nodiscard]] std::vector<int64_t> ShapeOf(const ModelConfig& config, Role role, int64_t layer);
// The shape of the tensor in the file that holds the role.
[[nodiscard]] std::vector<int64_t> StoredShape(const ModelConfig& config, Role role, int64_t layer);
// The place of the role inside its tensor. The name is left to the caller, who knows the prefix.
[[nodiscard]] WeightPlace PlaceInTensor(const ModelConfig& config, Role role, int64_t layer);

}  // namespace kvc
