#include "core/cache/cache_bases.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include "core/base/error.h"
#include "core/cache/bit_spread.h"
#include "core/io/safetensors.h"

namespace kvc {
namespace {

// How far an element of key query^T may be from the identity's: the rounding of float bases whose
// condition number is some hundreds, with room.
constexpr double kInverseTolerance = 1e-3;

constexpr std::string_view kLossPrefix = "losses.";

// A tensor of the file and its place in a layer.
struct Field {
  std::string_view name;
  std::vector<float> LayerBases::*values;
  bool of_key;  // else of the value
  enum Kind { kMatrix, kMean, kSteps, kErrors } kind;
};
constexpr std::array<Field, 10> kFields = {{
    {"key", &LayerBases::key, true, Field::kMatrix},
    {"query", &LayerBases::query, true, Field::kMatrix},
    {"key_mean", &LayerBases::key_mean, true, Field::kMean},
    {"key_steps", &LayerBases::key_steps, true, Field::kSteps},
    {"key_errors", &LayerBases::key_errors, true, Field::kErrors},
    {"value", &LayerBases::value, false, Field::kMatrix},
    {"output", &LayerBases::output, false, Field::kMatrix},
    {"value_mean", &LayerBases::value_mean, false, Field::kMean},
    {"value_steps", &LayerBases::value_steps, false, Field::kSteps},
    {"value_errors", &LayerBases::value_errors, false, Field::kErrors},
}};

std::string TensorName(size_t layer, std::string_view field) {
  return "layers." + std::to_string(layer) + "." + std::string(field);
}

// The tensor of a scorer's loss maps.
std::string LossName(size_t layer, const ScorerSpec& scorer) {
  return TensorName(layer, kLossPrefix) + ToString(scorer);
}

// Shape of a field; empty where the layer does not have it.
std::vector<int64_t> ShapeOf(const LayerBases& bases, const Field& field) {
  const int64_t width = field.of_key ? bases.key_width : bases.value_width;
  const int64_t heads = field.of_key ? bases.key_groups() : bases.num_kv_heads;
  if (width == 0) return {};
  switch (field.kind) {
    case Field::kMatrix:
      return {heads, width, width};
    case Field::kMean:
      return {heads, width};
    case Field::kErrors:
      return {heads, kErrorLevels, width};
    default:
      return {heads, std::ssize(kStepFormats), width};
  }
}

// True where files may leave the field out.
bool MayBeMissing(const Field& field) {
  return field.kind == Field::kSteps || field.kind == Field::kErrors;
}

// True where a layer has a field: steps are missing together, and errors too.
bool HasField(const LayerBases& bases, const Field& field) {
  if (ShapeOf(bases, field).empty()) return false;
  if (field.kind == Field::kErrors) return !bases.value_errors.empty();
  return field.kind != Field::kSteps || !bases.value_steps.empty();
}

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t count = shape.empty() ? 0 : 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

void CheckField(const LayerBases& bases, size_t layer, const Field& field) {
  const std::vector<float>& values = bases.*field.values;
  const int64_t expected = HasField(bases, field) ? Elements(ShapeOf(bases, field)) : 0;
  KVC_CHECK(std::ssize(values) == expected, kBadShape, "{}: {}: expected {} elements, got {}",
            kBasesFile, TensorName(layer, field.name), expected, values.size());
  for (const float value : values) {
    KVC_CHECK(std::isfinite(value), kNumeric,
              "{}: {}: expected finite numbers, got NaN or infinity", kBasesFile,
              TensorName(layer, field.name));
    KVC_CHECK(field.kind != Field::kSteps || value > 0.0F, kBadInput,
              "{}: {}: expected steps above zero, got {}; make the profile anew", kBasesFile,
              TensorName(layer, field.name), value);
    KVC_CHECK(field.kind != Field::kErrors || value >= 0.0F, kBadInput,
              "{}: {}: expected squared errors, got {}; make the profile anew", kBasesFile,
              TensorName(layer, field.name), value);
  }
}

// a b^T = I for every head; a, b [heads, width, width].
void CheckInverse(const std::vector<float>& a,
                  const std::vector<float>& b,
                  int64_t heads,
                  int64_t width,
                  const std::string& name) {
  for (int64_t g = 0; g < heads; ++g) {
    const float* a_head = a.data() + g * width * width;
    const float* b_head = b.data() + g * width * width;
    for (int64_t i = 0; i < width * width; ++i) {
      const float* a_row = a_head + i / width * width;
      const float* b_row = b_head + i % width * width;
      double sum = i / width == i % width ? -1.0 : 0.0;
      for (int64_t j = 0; j < width; ++j) sum += static_cast<double>(a_row[j]) * b_row[j];
      KVC_CHECK(std::abs(sum) <= kInverseTolerance, kBadInput,
                "{}: {}: expected the inverse of the other basis, got a product that is off by {} "
                "for kv head {}; make the profile anew",
                kBasesFile, name, sum, g);
    }
  }
}

// A tensor of layer `layer`, its widths taken from the file.
std::vector<float> ReadField(const SafetensorsReader& reader,
                             size_t layer,
                             const Field& field,
                             LayerBases& bases) {
  const std::string name = TensorName(layer, field.name);
  const TensorRef& tensor = reader.Get(name);
  const size_t dimensions = field.kind == Field::kMean ? 2 : 3;
  KVC_CHECK(tensor.dtype == DType::kF32 && tensor.shape.size() == dimensions, kBadInput,
            "{}: {}: expected F32 of {} dimensions, got {} of {}", kBasesFile, name, dimensions,
            SafetensorsName(tensor.dtype), tensor.shape.size());
  int64_t& width = field.of_key ? bases.key_width : bases.value_width;
  int64_t& heads = field.of_key ? bases.num_key_groups : bases.num_kv_heads;
  if (heads == 0) heads = tensor.shape[0];
  if (width == 0) width = tensor.shape.back();
  KVC_CHECK(
      tensor.shape == ShapeOf(bases, field) && tensor.num_elements() > 0, kBadShape,
      "{}: {}: expected {} heads of width {} as in the layer's other tensors, got another shape",
      kBasesFile, name, heads, width);
  std::vector<float> values(tensor.num_elements());
  ConvertToFloat(tensor.dtype, tensor.bytes.data(), tensor.num_elements(), values.data());
  return values;
}

// [groups, 2, points] of a scorer's maps, and back.
std::vector<float> Interleaved(const LossMaps& maps) {
  std::vector<float> values;
  for (size_t at = 0; at < maps.scores.size(); at += kLossMapPoints) {
    for (const std::vector<float>* part : {&maps.scores, &maps.losses}) {
      values.insert(values.end(), part->begin() + at, part->begin() + at + kLossMapPoints);
    }
  }
  return values;
}

LossMaps ReadLossMaps(const SafetensorsReader& reader, const std::string& name) {
  const TensorRef& tensor = reader.Get(name);
  KVC_CHECK(tensor.dtype == DType::kF32 && tensor.shape.size() == 3 && tensor.shape[1] == 2 &&
                tensor.shape[2] == kLossMapPoints,
            kBadInput, "{}: {}: expected F32 [groups, 2, {}], got another type or shape",
            kBasesFile, name, kLossMapPoints);
  std::vector<float> values(tensor.num_elements());
  ConvertToFloat(tensor.dtype, tensor.bytes.data(), tensor.num_elements(), values.data());
  LossMaps maps;
  for (auto at = values.begin(); at != values.end(); at += 2 * kLossMapPoints) {
    maps.scores.insert(maps.scores.end(), at, at + kLossMapPoints);
    maps.losses.insert(maps.losses.end(), at + kLossMapPoints, at + 2 * kLossMapPoints);
  }
  return maps;
}

// Reads a layer's loss maps of all scorers; returns their number.
size_t ReadLossMaps(const SafetensorsReader& reader, size_t layer, LayerBases& bases) {
  const std::string prefix = TensorName(layer, kLossPrefix);
  for (const std::string& name : reader.names()) {
    if (!name.starts_with(prefix)) continue;
    const ScorerSpec scorer = ParseScorer(name.substr(prefix.size()), kBasesFile);
    bases.loss_maps[scorer] = ReadLossMaps(reader, name);
  }
  return bases.loss_maps.size();
}

void CheckEqual(int64_t actual, int64_t expected, size_t layer, std::string_view what) {
  KVC_CHECK(actual == expected, kBadShape,
            "{}: layer {}: {}: expected {} as in the cache, got {}; profile the checkpoint that is "
            "exported",
            kBasesFile, layer, what, expected, actual);
}

// The steps of head `head` in a tensor [G, 3, width]; runs [G, kMixedRates].
CodeSteps StepsOf(const std::vector<float>& steps,
                  const std::vector<RunEnds>& runs,
                  const RowFormat& format,
                  int64_t head,  // of a key: its stream
                  int64_t width,
                  const char* what) {
  if (!NeedsSteps(format)) return nullptr;
  const auto found = std::ranges::find(kStepFormats, format);
  const bool mixed = IsMixed(format);
  KVC_CHECK(!steps.empty() && (mixed || found != kStepFormats.end()) && !(mixed && runs.empty()),
            kUnsupported,
            "{}: expected the steps of {} in {}, got none; profile with this version, or take "
            "tiers of 16 bits{}",
            kBasesFile, what, RowFormatName(format),
            width == 0 ? " (these latents have no steps)" : "");
  const float* own = steps.data() + head * std::ssize(kStepFormats) * width;
  if (mixed) return {own, width, runs[head * kMixedRates + format.rate - 1]};
  return own + (found - kStepFormats.begin()) * width;
}

}  // namespace

CodeSteps KeySteps(const LayerBases& bases, const RowFormat& format, int64_t head) {
  return StepsOf(bases.key_steps, bases.key_runs, format, bases.KeyGroupOf(head), bases.key_width,
                 "keys");
}

CodeSteps ValueSteps(const LayerBases& bases, const RowFormat& format, int64_t head) {
  return StepsOf(bases.value_steps, bases.value_runs, format, head, bases.value_width, "values");
}

void SpreadOverLayer(LayerBases& bases) {
  bases.key_runs.clear();
  bases.value_runs.clear();
  if (bases.value_errors.empty()) return;
  std::vector<ColumnErrors> rows;
  const auto add = [&](const std::vector<float>& errors, int64_t heads, int64_t width) {
    for (int64_t g = 0; g < heads && !errors.empty(); ++g) {
      rows.push_back({errors.data() + g * kErrorLevels * width, width});
    }
  };
  const int64_t heads = bases.num_kv_heads;
  add(bases.value_errors, heads, bases.value_width);
  add(bases.key_errors, bases.key_groups(), bases.key_width);
  bases.value_runs.resize(static_cast<size_t>(heads * kMixedRates));
  bases.key_runs.resize((rows.size() - heads) * kMixedRates);
  for (int32_t rate = 1; rate <= kMixedRates; ++rate) {
    const std::vector<RunEnds> ends = SpreadBits(rows, rate);
    for (int64_t i = 0; i < std::ssize(ends); ++i) {
      const bool of_value = i < heads;
      const int64_t row = of_value ? i : i - heads;
      (of_value ? bases.value_runs : bases.key_runs)[row * kMixedRates + rate - 1] = ends[i];
    }
  }
}

LossMapView LossMapOf(const CacheSpec& spec, int64_t layer, int64_t n) {
  if (spec.bases == nullptr) return {};
  const LossMapsByScorer& maps = spec.bases->at(layer).loss_maps;
  const auto found = maps.find(spec.scorer);
  return found == maps.end() ? LossMapView() : LossMapView(found->second, n);
}

void CheckBases(const std::vector<LayerBases>& bases) {
  for (size_t l = 0; l < bases.size(); ++l) {
    const LayerBases& layer = bases[l];
    KVC_CHECK(layer.num_kv_heads > 0 && layer.value_width > 0 && layer.key_width >= 0, kBadShape,
              "{}: layer {}: expected heads and a value width, got none", kBasesFile, l);
    KVC_CHECK(layer.num_kv_heads % layer.key_groups() == 0, kBadShape,
              "{}: layer {}: expected key streams that divide {} kv heads, got {}", kBasesFile, l,
              layer.num_kv_heads, layer.key_groups());
    for (const Field& field : kFields) CheckField(layer, l, field);
    CheckInverse(layer.key, layer.query, layer.key_groups(), layer.key_width,
                 TensorName(l, "query"));
    CheckInverse(layer.value, layer.output, layer.num_kv_heads, layer.value_width,
                 TensorName(l, "output"));
    for (const auto& [scorer, maps] : layer.loss_maps) {
      CheckLossMaps(maps, std::string(kBasesFile) + ": " + LossName(l, scorer));
    }
  }
}

void CheckBasesFit(const std::vector<LayerBases>& bases, const CacheSpec& spec) {
  KVC_CHECK(
      std::ssize(bases) == spec.num_layers(), kBadShape,
      "{}: expected {} layers as in the cache, got {}; profile the checkpoint that is exported",
      kBasesFile, spec.num_layers(), bases.size());
  for (size_t l = 0; l < bases.size(); ++l) {
    int64_t key_width = 0;
    bool latent = false;
    for (const CacheGroup& group : spec.layers[l]) {
      latent = latent || group.keeps_positions;
      key_width = std::max(key_width, group.key_width);
    }
    CheckEqual(bases[l].num_kv_heads, spec.num_kv_heads, l, "kv heads");
    if (!latent || bases[l].key_width > 0) {
      CheckEqual(bases[l].key_width, key_width, l, "key width");
      CheckEqual(bases[l].key_groups(), std::ssize(spec.layers[l]), l, "key streams");
    }
    CheckEqual(bases[l].value_width, spec.head_width, l, "value width");
    for (int64_t t = 0; t < std::ssize(spec.tiers); ++t) {
      static_cast<void>(ValueSteps(bases[l], ValueFormat(spec, t), 0));
      static_cast<void>(KeySteps(bases[l], KeyFormat(spec, t), 0));
    }
    for (const auto& [scorer, maps] : bases[l].loss_maps) {
      CheckEqual(std::ssize(maps.scores) / kLossMapPoints, std::ssize(spec.layers[l]), l,
                 "groups of loss maps");
    }
  }
}

void WriteBases(const std::filesystem::path& path, const std::vector<LayerBases>& bases) {
  CheckBases(bases);
  std::vector<TensorSpec> specs;
  const auto for_each_field = [&](const auto& visit) {
    for (size_t l = 0; l < bases.size(); ++l) {
      for (const auto& [scorer, maps] : bases[l].loss_maps) {
        const int64_t groups = std::ssize(maps.scores) / kLossMapPoints;
        visit(LossName(l, scorer), std::vector<int64_t>{groups, 2, kLossMapPoints},
              Interleaved(maps));
      }
      for (const Field& field : kFields) {
        const std::vector<int64_t> shape = ShapeOf(bases[l], field);
        if (HasField(bases[l], field)) {
          visit(TensorName(l, field.name), shape, bases[l].*field.values);
        }
      }
    }
  };
  for_each_field([&](const std::string& name, const std::vector<int64_t>& shape, const auto&) {
    specs.push_back({name, DType::kF32, shape});
  });
  SafetensorsWriter writer(path, specs,
                           {{"format", "kvc-bases"}, {"num_layers", std::to_string(bases.size())}});
  for_each_field([&](const std::string& name, const auto&, const std::vector<float>& values) {
    writer.WriteFloats(name, values);
  });
  writer.Close();
}

std::vector<LayerBases> ReadBases(const std::filesystem::path& path) {
  const auto reader = SafetensorsReader::OpenFile(path);
  std::vector<LayerBases> bases;
  size_t read = 0;
  while (reader.Contains(TensorName(bases.size(), "value"))) {
    const size_t l = bases.size();
    LayerBases& layer = bases.emplace_back();
    const bool keyless = !reader.Contains(TensorName(l, "key"));
    for (const Field& field : kFields) {
      if (field.of_key && keyless) continue;
      if (MayBeMissing(field) && !reader.Contains(TensorName(l, field.name))) continue;
      layer.*field.values = ReadField(reader, l, field, layer);
      ++read;
    }
    read += ReadLossMaps(reader, l, layer);
  }
  KVC_CHECK(!bases.empty() && read == reader.names().size(), kBadInput,
            "{}: expected the bases of layers 0, 1, ..., got {} tensors of which {} are such",
            path.string(), reader.names().size(), read);
  CheckBases(bases);
  for (LayerBases& layer : bases) SpreadOverLayer(layer);
  return bases;
}

}  // namespace kvc
