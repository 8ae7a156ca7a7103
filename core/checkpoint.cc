#include "core/checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace kvc {
namespace {

// A role's tensor name in GPT-2 and in the Llama families, without prefix. A name that begins with
// a dot belongs to a layer; empty: the family does not have it.
struct RoleRow {
  Role role;
  const char* gpt2;
  const char* llama;
};

constexpr std::array<RoleRow, 26> kRoles = {{
    {Role::kEmbedding, "wte.weight", "embed_tokens.weight"},
    {Role::kPositionEmbedding, "wpe.weight", ""},
    {Role::kFinalNorm, "ln_f.weight", "norm.weight"},
    {Role::kFinalNormBias, "ln_f.bias", ""},
    {Role::kLmHead, "lm_head.weight", "lm_head.weight"},
    {Role::kAttnNorm, ".ln_1.weight", ".input_layernorm.weight"},
    {Role::kAttnNormBias, ".ln_1.bias", ""},
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
    {Role::kMlpNorm, ".ln_2.weight", ".post_attention_layernorm.weight"},
    {Role::kMlpNormBias, ".ln_2.bias", ""},
    {Role::kGate, "", ".mlp.gate_proj.weight"},
    {Role::kGateBias, "", ".mlp.gate_proj.bias"},
    {Role::kUp, ".mlp.c_fc.weight", ".mlp.up_proj.weight"},
    {Role::kUpBias, ".mlp.c_fc.bias", ".mlp.up_proj.bias"},
    {Role::kDown, ".mlp.c_proj.weight", ".mlp.down_proj.weight"},
    {Role::kDownBias, ".mlp.c_proj.bias", ".mlp.down_proj.bias"},
}};

const RoleRow& RowOf(Role role) {
  const auto* row =
      std::find_if(kRoles.begin(), kRoles.end(), [&](const RoleRow& r) { return r.role == role; });
  KVC_CHECK(row != kRoles.end(),
            kInternal,
            "role: expected one of the enumeration, got ",
            static_cast<int>(role));
  return *row;
}

bool IsOuter(Role role) {
  return role == Role::kEmbedding || role == Role::kPositionEmbedding || role == Role::kFinalNorm ||
         role == Role::kFinalNormBias || role == Role::kLmHead;
}

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

// Rows of the query projection. Absorbed queries are as wide as the key of the group they meet.
int64_t QueryRows(const ModelConfig& config, int64_t layer) {
  return config.keys.layout == KeyLayout::kAbsorb ? config.group_size() * SumOfRanks(config, layer)
                                                  : config.num_heads * config.head_width;
}

// Rows of the key projection: what a layer caches for a token.
int64_t KeyRows(const ModelConfig& config, int64_t layer) {
  return config.thin() ? SumOfRanks(config, layer) : config.num_kv_heads * config.head_width;
}

bool HasRole(const ModelConfig& config, Role role) {
  const bool gpt2 = config.family == Family::kGpt2;
  switch (role) {
    case Role::kPositionEmbedding:
    case Role::kFinalNormBias:
    case Role::kAttnNormBias:
    case Role::kMlpNormBias:
      return gpt2;
    case Role::kQBias:
    case Role::kVBias:
      return config.qkv_bias;
    case Role::kKBias:
      return config.qkv_bias && config.keys.layout != KeyLayout::kAbsorb;
    case Role::kOBias:
      return config.out_bias;
    case Role::kQNorm:
    case Role::kKNorm:
      return config.qk_norm;
    case Role::kKRebuild:
      return config.keys.layout == KeyLayout::kLatent;
    case Role::kGate:
      return !gpt2;
    case Role::kGateBias:
      return !gpt2 && config.mlp_bias;
    case Role::kUpBias:
    case Role::kDownBias:
      return config.mlp_bias;
    default:
      return true;
  }
}

// [out, in] or [out] of the role, not of the tensor that may hold it fused or transposed.
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
    case Role::kKBias:
    case Role::kVBias:
      return {value_rows};
    case Role::kV:
      return {value_rows, width};
    case Role::kO:
      return {width, config.num_heads * config.head_width};
    case Role::kQNorm:
    case Role::kKNorm:
      return {config.head_width};
    case Role::kKRebuild: {
      const auto& ranks = config.keys.ranks.at(static_cast<size_t>(layer));
      return {value_rows, *std::max_element(ranks.begin(), ranks.end())};
    }
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

// [first row, rows] of the role inside GPT-2's fused c_attn, and its rows in all.
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

// Shape of the tensor in the file that holds the role.
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

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

// The prefix under which the file keeps the model: a bare model was saved without one.
std::string FindPrefix(const ModelConfig& config, const SafetensorsReader& tensors) {
  const bool gpt2 = config.family == Family::kGpt2;
  const std::string prefix = gpt2 ? "transformer." : "model.";
  const RoleRow& row = RowOf(Role::kEmbedding);
  const std::string bare = gpt2 ? row.gpt2 : row.llama;
  return !tensors.Contains(prefix + bare) && tensors.Contains(bare) ? "" : prefix;
}

void CheckFinite(const std::vector<float>& values, int64_t cols, const std::string& name) {
  // One pass without branches for the usual case; the search for the element follows only on a hit.
  constexpr uint32_t kExponent = 0x7f800000U;
  uint32_t found = 0;
  for (const float value : values) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    found |= static_cast<uint32_t>((bits & kExponent) == kExponent);
  }
  if (found == 0) {
    return;
  }
  const auto it =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  const int64_t index = it - values.begin();
  KVC_THROW(kNumeric,
            name,
            ": expected finite weights, got ",
            *it,
            " at row ",
            index / cols,
            ", column ",
            index % cols);
}

// source [in, stride] with the wanted rows of the output in columns begin..begin+out -> [out, in]
void LoadTransposed(const TensorRef& tensor, int64_t begin, int64_t out, float* target) {
  constexpr int64_t kTile = 32;  // 32 rows x 32 columns of floats stay in the L1 cache
  const int64_t in = tensor.shape[0];
  const int64_t stride = tensor.shape[1];
  const int64_t width = DTypeBytes(tensor.dtype);
  std::vector<float> rows(static_cast<size_t>(kTile * out));  // [kTile, out]
  for (int64_t i0 = 0; i0 < in; i0 += kTile) {
    const int64_t num_rows = std::min(kTile, in - i0);
    for (int64_t i = 0; i < num_rows; ++i) {
      const std::byte* source = tensor.bytes.data() + ((i0 + i) * stride + begin) * width;
      ConvertToFloat(tensor.dtype, source, out, rows.data() + i * out);
    }
    for (int64_t o0 = 0; o0 < out; o0 += kTile) {
      const int64_t o_end = std::min(out, o0 + kTile);
      for (int64_t o = o0; o < o_end; ++o) {
        for (int64_t i = 0; i < num_rows; ++i) {
          target[o * in + i0 + i] = rows[static_cast<size_t>(i * out + o)];
        }
      }
    }
  }
}

}  // namespace

Checkpoint::Checkpoint(std::filesystem::path directory,
                       ModelConfig config,
                       SafetensorsReader tensors)
    : directory_(std::move(directory)),
      config_(std::move(config)),
      tensors_(std::move(tensors)),
      prefix_(FindPrefix(config_, tensors_)) {}

Checkpoint Checkpoint::Open(const std::filesystem::path& directory) {
  ModelConfig config = ReadModelConfig(directory);
  Checkpoint checkpoint(directory, std::move(config), SafetensorsReader::OpenDirectory(directory));
  checkpoint.CheckShapes();
  return checkpoint;
}

void Checkpoint::CheckShapes() const {
  const auto check = [&](Role role, int64_t layer) {
    const std::string name = Place(role, layer).name;
    const std::vector<int64_t> expected = StoredShape(
        config_, role == Role::kLmHead && config_.tied_embeddings ? Role::kEmbedding : role, layer);
    KVC_CHECK(tensors_.Contains(name),
              kBadInput,
              directory_.string(),
              ": expected a tensor \"",
              name,
              "\", got none; check model_type and tie_word_embeddings in config.json");
    const TensorRef& tensor = tensors_.Get(name);
    KVC_CHECK(tensor.shape == expected,
              kBadShape,
              name,
              ": expected shape ",
              ShapeText(expected),
              ", got ",
              ShapeText(tensor.shape),
              "; check the sizes in config.json");
    const bool floating = tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 ||
                          tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF64;
    KVC_CHECK(floating,
              kUnsupported,
              name,
              ": expected floating-point weights, got ",
              SafetensorsName(tensor.dtype));
  };
  for (const RoleRow& row : kRoles) {
    if (IsOuter(row.role) && Has(row.role)) {
      check(row.role, -1);
    }
  }
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    for (const RoleRow& row : kRoles) {
      if (!IsOuter(row.role) && Has(row.role, layer)) {
        check(row.role, layer);
      }
    }
  }
}

bool Checkpoint::Has(Role role, int64_t layer) const {
  const bool in_range = IsOuter(role) ? layer == -1 : layer >= 0 && layer < config_.num_layers;
  return in_range && HasRole(config_, role);
}

WeightPlace Checkpoint::Place(Role role, int64_t layer) const {
  const RoleRow& row = RowOf(role);
  const bool gpt2 = config_.family == Family::kGpt2;
  const std::string local = gpt2 ? row.gpt2 : row.llama;
  KVC_CHECK(Has(role, layer) && !local.empty(),
            kInternal,
            directory_.string(),
            ": expected a role of this model, got role ",
            static_cast<int>(role),
            " of layer ",
            layer);
  WeightPlace place;
  if (role == Role::kLmHead) {
    // Not under the prefix: the head is outside the model proper.
    place.name = config_.tied_embeddings ? Place(Role::kEmbedding).name : local;
    return place;
  }
  place.name = IsOuter(role) ? prefix_ + local
                             : prefix_ + (gpt2 ? "h." : "layers.") + std::to_string(layer) + local;
  if (gpt2) {
    place.transposed = IsConv1D(role);
    if (IsFused(role)) {
      const FusedSlice slice = SliceOf(config_, role, layer);
      place.out_begin = slice.begin;
      place.out_count = slice.count;
    }
  }
  return place;
}

std::vector<int64_t> Checkpoint::Shape(Role role, int64_t layer) const {
  KVC_CHECK(Has(role, layer),
            kInternal,
            directory_.string(),
            ": expected a role of this model, got role ",
            static_cast<int>(role),
            " of layer ",
            layer);
  return ShapeOf(config_, role, layer);
}

std::vector<float> Checkpoint::Load(Role role, int64_t layer) const {
  const WeightPlace place = Place(role, layer);
  const TensorRef& tensor = tensors_.Get(place.name);
  const std::vector<int64_t> shape = Shape(role, layer);
  const int64_t cols = shape.size() == 2 ? shape[1] : 1;
  std::vector<float> values(static_cast<size_t>(shape[0] * cols));  // [out, in]
  if (place.transposed) {
    LoadTransposed(tensor, place.out_begin, shape[0], values.data());
  } else {
    const std::byte* source =
        tensor.bytes.data() + place.out_begin * cols * DTypeBytes(tensor.dtype);
    ConvertToFloat(tensor.dtype, source, shape[0] * cols, values.data());
  }
  CheckFinite(values, cols, place.name);
  return values;
}

DType Checkpoint::StoredType(Role role, int64_t layer) const {
  return tensors_.Get(Place(role, layer).name).dtype;
}

void Checkpoint::ReleaseLayer(int64_t layer) const {
  for (const RoleRow& row : kRoles) {
    if (!IsOuter(row.role) && Has(row.role, layer)) {
      tensors_.Release(Place(row.role, layer).name);
    }
  }
}

std::vector<std::filesystem::path> CompanionFiles(const std::filesystem::path& directory) {
  static constexpr std::array<const char*, 10> kNames = {"tokenizer.json",
                                                         "tokenizer_config.json",
                                                         "special_tokens_map.json",
                                                         "tokenizer.model",
                                                         "vocab.json",
                                                         "merges.txt",
                                                         "encoder.json",
                                                         "vocab.bpe",
                                                         "generation_config.json",
                                                         "chat_template.jinja"};
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const char* name : kNames) {
    if (std::filesystem::is_regular_file(directory / name, error)) {
      files.push_back(directory / name);
    }
  }
  return files;
}

}  // namespace kvc
