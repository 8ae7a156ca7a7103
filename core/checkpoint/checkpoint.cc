#include "core/checkpoint/checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/checkpoint/unannounced.h"
#include "core/checkpoint/weight_layout.h"
#include "core/io/file_kind.h"
#include "core/io/json.h"
#include "core/io/mapped_file.h"

namespace kvc {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

bool IsFloating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 ||
         dtype == DType::kF64;
}

// The prefix of the tensor names. A bare model was saved without one.
std::string FindPrefix(const ModelConfig& config, const SafetensorsReader& tensors) {
  const bool gpt2 = config.family == Family::kGpt2;
  std::string prefix = gpt2 ? "transformer." : "model.";
  for (const Role role : {Role::kEmbedding, Role::kFinalNorm}) {
    const RoleRow& row = RowOf(role);
    const std::string bare = gpt2 ? row.gpt2 : row.llama;
    if (tensors.Contains(prefix + bare)) return prefix;
    if (tensors.Contains(bare)) return "";
  }
  return prefix;
}

// True when both hold the same numbers.
bool SameNumbers(const TensorRef& a, const TensorRef& b) {
  if (a.shape != b.shape) return false;
  if (a.dtype == b.dtype) return std::ranges::equal(a.bytes, b.bytes);
  if (!IsFloating(a.dtype) || !IsFloating(b.dtype)) return false;
  constexpr int64_t kChunk = 1 << 16;
  std::vector<float> left(kChunk);
  std::vector<float> right(kChunk);
  for (int64_t begin = 0; begin < a.num_elements(); begin += kChunk) {
    const int64_t count = std::min(kChunk, a.num_elements() - begin);
    const auto read = [&](const TensorRef& tensor, std::vector<float>& values) {
      ConvertToFloat(tensor.dtype, tensor.bytes.data() + begin * DTypeBytes(tensor.dtype), count,
                     values.data());
    };
    read(a, left);
    read(b, right);
    if (!std::equal(left.begin(), left.begin() + count, right.begin())) return false;
  }
  return true;
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
  KVC_THROW(kNumeric, "{}: expected finite weights, got {} at row {}, column {}", name, *it,
            index / cols, index % cols);
}

// Writes columns begin .. begin + out - 1 of the tensor [in, stride] as rows: target [out, in].
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
  std::error_code error;
  if (std::filesystem::is_regular_file(directory, error)) {
    const MappedFile file(directory);
    RefuseKnownKind(file.bytes(), directory.string(), "the directory of a model");
    KVC_THROW(kBadInput, "{}: expected the directory of a model, got a file", directory.string());
  }
  KVC_CHECK(std::filesystem::is_directory(directory, error), kIo,
            "{}: expected a model directory, got none", directory.string());
  ModelConfig config = ReadModelConfig(directory);
  Checkpoint checkpoint(directory, std::move(config), SafetensorsReader::OpenDirectory(directory));
  checkpoint.SettleHead();
  checkpoint.CheckShapes();
  checkpoint.NoteUnannounced();
  checkpoint.NoteIgnoredShare();
  return checkpoint;
}

void Checkpoint::SettleHead() {
  const std::string head = RowOf(Role::kLmHead).llama;
  const std::string embedding = Place(Role::kEmbedding).name;
  if (!config_.tied_embeddings || embedding == head || !tensors_.Contains(head)) return;
  if (!tensors_.Contains(embedding)) return;  // CheckShapes names it
  config_.tied_embeddings = SameNumbers(tensors_.Get(embedding), tensors_.Get(head));
  tensors_.Release(embedding);
  tensors_.Release(head);
  if (config_.tied_embeddings) return;
  warnings_.push_back(directory_.string() + ": " + head + " differs from " + embedding +
                      ", though tie_word_embeddings is true: used as the head");
}

void Checkpoint::CheckTensor(Role role, int64_t layer) const {
  const std::string name = Place(role, layer).name;
  const std::vector<int64_t> expected = StoredShape(
      config_, role == Role::kLmHead && config_.tied_embeddings ? Role::kEmbedding : role, layer);
  const bool is_there = tensors_.Contains(name) || tensors_.unreadable().contains(name);
  KVC_CHECK(is_there, kBadInput,
            "{}: expected a tensor \"{}\", got none; check model_type and tie_word_embeddings in "
            "config.json",
            directory_.string(), name);
  const TensorRef& tensor = tensors_.Get(name);
  KVC_CHECK(tensor.shape == expected, kBadShape,
            "{}: expected shape {}, got {}; check the sizes in config.json", name,
            ShapeText(expected), ShapeText(tensor.shape));
  KVC_CHECK(IsFloating(tensor.dtype), kUnsupported, "{}: expected floating-point weights, got {}",
            name, SafetensorsName(tensor.dtype));
}

void Checkpoint::CheckShapes() const {
  for (const RoleRow& row : kRoles) {
    if (IsOuter(row.role) && Has(row.role)) CheckTensor(row.role, -1);
  }
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    for (const RoleRow& row : kRoles) {
      if (!IsOuter(row.role) && Has(row.role, layer)) CheckTensor(row.role, layer);
    }
  }
}

void Checkpoint::NoteUnannounced() {
  std::set<std::string> used;
  for (const RoleRow& row : kRoles) {
    if (IsOuter(row.role) && Has(row.role)) used.insert(Place(row.role).name);
    for (int64_t layer = 0; !IsOuter(row.role) && layer < config_.num_layers; ++layer) {
      if (Has(row.role, layer)) used.insert(Place(row.role, layer).name);
    }
  }
  if (config_.tied_embeddings) used.insert(RowOf(Role::kLmHead).llama);  // the same numbers
  const std::string text = DescribeUnannounced(tensors_, used, config_.num_layers);
  if (!text.empty()) warnings_.push_back(directory_.string() + ": " + text);
}

void Checkpoint::NoteIgnoredShare() {
  constexpr char kKey[] = "partial_rotary_factor";
  const FamilyFacts& facts = FactsOf(config_.family);
  if (facts.partial_rotary || !config_.has_rope || config_.source == nullptr) return;
  const Json& source = *config_.source;
  std::vector<const Json*> places = {&source};
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (source.contains(key) && source.at(key).is_object()) places.push_back(&source.at(key));
  }
  for (const Json* place : places) {
    const auto share = place->find(kKey);
    if (share == place->end() || !share->is_number() || share->get<double>() == 1.0) continue;
    warnings_.push_back(directory_.string() + ": " + kKey + " " + share->dump() +
                        " is ignored, as in transformers: " + std::string(facts.name) +
                        " rotates whole heads");
    return;
  }
}

bool Checkpoint::Has(Role role, int64_t layer) const {
  const bool in_range = IsOuter(role) ? layer == -1 : layer >= 0 && layer < config_.num_layers;
  return in_range && HasRole(config_, role);
}

WeightPlace Checkpoint::Place(Role role, int64_t layer) const {
  const bool gpt2 = config_.family == Family::kGpt2;
  const std::string local = LocalName(config_, role);
  KVC_CHECK(Has(role, layer) && !local.empty(), kInternal,
            "{}: expected a role of this model, got role {} of layer {}", directory_.string(),
            static_cast<int>(role), layer);
  WeightPlace place = PlaceInTensor(config_, role, layer);
  if (role == Role::kLmHead) {
    // The head is outside the model proper, hence not under the prefix.
    place.name = config_.tied_embeddings ? Place(Role::kEmbedding).name : local;
    return place;
  }
  if (role == Role::kEmbedding && config_.tied_embeddings) {
    // A tied pair may be saved under the head's name alone.
    const std::string head = RowOf(Role::kLmHead).llama;
    const bool head_only = !tensors_.Contains(prefix_ + local) && tensors_.Contains(head);
    place.name = head_only ? head : prefix_ + local;
    return place;
  }
  place.name = IsOuter(role) ? prefix_ + local
                             : prefix_ + (gpt2 ? "h." : "layers.") + std::to_string(layer) + local;
  return place;
}

std::vector<int64_t> Checkpoint::Shape(Role role, int64_t layer) const {
  KVC_CHECK(Has(role, layer), kInternal,
            "{}: expected a role of this model, got role {} of layer {}", directory_.string(),
            static_cast<int>(role), layer);
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

DType Checkpoint::OwnType() const {
  const DType dtype = config_.dtype.value_or(StoredType(Role::kEmbedding));
  return dtype == DType::kF64 ? DType::kF32 : dtype;
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
  static constexpr std::array<const char*, 11> kNames = {"tokenizer.json",
                                                         "tokenizer_config.json",
                                                         "special_tokens_map.json",
                                                         "added_tokens.json",
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
