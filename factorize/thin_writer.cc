#include "factorize/thin_writer.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <span>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "factorize/modeling_file.h"

namespace kvc::factorize {
namespace {

// One tensor of the output: copied from the source, or made from factors.
struct Item {
  TensorSpec spec;
  std::function<std::vector<float>()> make;  // empty: copied

  [[nodiscard]] int64_t bytes() const {
    int64_t count = DTypeBytes(spec.dtype);
    for (const int64_t size : spec.shape) count *= size;
    return count;
  }
};

// Returns the name of a tensor beside the key projection: its name with `part` ("k_rebuild") for
// k_proj.
std::string NameBeside(std::string key_name, const std::string& part) {
  const std::string projection = "k_proj";
  const size_t at = key_name.rfind(projection);
  KVC_CHECK(at != std::string::npos, kInternal, "{}: expected a k_proj weight", key_name);
  return key_name.replace(at, projection.size(), part);
}

// GPT-2's fused projection [E, R + R + E], in the file's [in, out] order.
std::vector<float> FusedWeight(const Checkpoint& source,
                               const LayerFactors& factors,
                               int64_t layer) {
  const int64_t E = source.config().model_width;
  const std::vector<float> v = source.Load(Role::kV, layer);  // [E_v, E]
  const std::vector<const std::vector<float>*> parts = {&factors.q, &factors.k, &v};
  const int64_t rows = static_cast<int64_t>(factors.q.size() + factors.k.size() + v.size()) / E;
  std::vector<float> fused(rows * E);
  int64_t out = 0;
  for (const std::vector<float>* part : parts) {
    for (int64_t r = 0; r < static_cast<int64_t>(part->size()) / E; ++r, ++out) {
      for (int64_t e = 0; e < E; ++e) fused[e * rows + out] = (*part)[r * E + e];
    }
  }
  return fused;
}

std::vector<float> FusedBias(const Checkpoint& source, const LayerFactors& factors, int64_t layer) {
  std::vector<float> fused = factors.q_bias;
  fused.insert(fused.end(), factors.k.size() / source.config().model_width, 0.0F);
  const std::vector<float> v = source.Load(Role::kVBias, layer);
  fused.insert(fused.end(), v.begin(), v.end());
  return fused;
}

using Items = std::map<std::string, Item>;  // by name

// A float tensor of `values`, [rows, columns] or, with no columns, [rows].
void AddItem(Items& items,
             const std::string& name,
             const std::vector<float>& values,
             int64_t columns = 0) {
  const int64_t rows = static_cast<int64_t>(values.size()) / std::max<int64_t>(columns, 1);
  std::vector<int64_t> shape = {rows};
  if (columns > 0) shape.push_back(columns);
  items[name] = {{name, DType::kF32, std::move(shape)}, [&values] { return values; }};
}

void AddAbsorbed(const Checkpoint& source, const LayerFactors& layer, int64_t l, Items& items) {
  const ModelConfig& config = source.config();
  const int64_t E = config.model_width;
  const int64_t rows = static_cast<int64_t>(layer.k.size()) / E;
  const int64_t total = 2 * rows + config.num_kv_heads * config.head_width;
  const std::string name = source.Place(Role::kK, l).name;
  items[name] = {{name, DType::kF32, {E, total}},
                 [&source, &layer, l] { return FusedWeight(source, layer, l); }};
  const std::string bias = source.Place(Role::kQBias, l).name;
  items[bias] = {{bias, DType::kF32, {total}},
                 [&source, &layer, l] { return FusedBias(source, layer, l); }};
}

// Adds the separate projections of families with rotation, and the tensors that belong to them.
void AddProjections(const Checkpoint& source, const LayerFactors& layer, int64_t l, Items& items) {
  const ModelConfig& config = source.config();
  const int64_t E = config.model_width;
  const std::string name = source.Place(Role::kK, l).name;
  if (!layer.k.empty()) AddItem(items, name, layer.k, E);
  if (!layer.q.empty()) AddItem(items, source.Place(Role::kQ, l).name, layer.q, E);
  if (!layer.k_bias.empty()) AddItem(items, source.Place(Role::kKBias, l).name, layer.k_bias);
  if (!layer.q_bias.empty()) AddItem(items, source.Place(Role::kQBias, l).name, layer.q_bias);
  if (!layer.k_rebuild.empty()) {
    const int64_t key_rows = config.num_kv_heads * config.head_width;
    const auto width = static_cast<int64_t>(layer.k_rebuild.size()) / key_rows;
    AddItem(items, NameBeside(name, "k_rebuild"), layer.k_rebuild, width);
  }
  if (!layer.k_reduce.empty()) {
    const std::string key = NameBeside(name, "k_reduce");
    AddItem(items, key, layer.k_reduce, config.head_width);
    const std::string bias = key.substr(0, key.rfind('.')) + ".bias";
    AddItem(items, bias, layer.k_reduce_bias);
    AddItem(items, NameBeside(name, "q_reduce"), layer.q_reduce, config.head_width);
  }
}

// Tensors that the factors replace or add.
Items ThinItems(const Checkpoint& source,
                const KeyFactors& keys,
                const std::vector<LayerFactors>& factors) {
  Items items;
  for (int64_t l = 0; l < source.config().num_layers; ++l) {
    if (keys.layout == KeyLayout::kAbsorb) {
      AddAbsorbed(source, factors[l], l, items);
    } else {
      AddProjections(source, factors[l], l, items);
    }
  }
  return items;
}

std::vector<Item> AllItems(const Checkpoint& source,
                           const KeyFactors& keys,
                           const std::vector<LayerFactors>& factors) {
  Items items = ThinItems(source, keys, factors);
  for (const std::string& name : source.tensors().names()) {
    if (items.contains(name)) continue;
    const TensorRef& tensor = source.tensors().Get(name);
    items[name] = {{name, tensor.dtype, tensor.shape}, {}};
  }
  std::vector<Item> sorted;
  for (auto& [name, item] : items) sorted.push_back(std::move(item));
  return sorted;
}

// Cuts the items into shards of at most `shard_bytes`, one tensor at least in each.
std::vector<std::vector<Item>> Shard(std::vector<Item> items, int64_t shard_bytes) {
  std::vector<std::vector<Item>> shards(1);
  int64_t filled = 0;
  for (Item& item : items) {
    if (!shards.back().empty() && filled + item.bytes() > shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += item.bytes();
    shards.back().push_back(std::move(item));
  }
  return shards;
}

std::string ShardName(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

// Makes the disk read the next item that is copied while this one is written: a copy that waits for
// each page in turn takes up to twice as long.
void PrefetchNext(const Checkpoint& source, std::span<const Item> rest) {
  const auto next =
      std::find_if(rest.begin(), rest.end(), [](const Item& item) { return !item.make; });
  if (next != rest.end()) source.tensors().Prefetch(next->spec.name);
}

void WriteShard(const Checkpoint& source,
                const std::vector<Item>& items,
                const std::filesystem::path& path,
                int64_t& done,
                int64_t total,
                Progress& progress) {
  std::vector<TensorSpec> specs;
  specs.reserve(items.size());
  for (const Item& item : items) specs.push_back(item.spec);
  SafetensorsWriter writer(path, specs, {{"format", "pt"}});
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    PrefetchNext(source, std::span(items).subspan(i + 1));
    if (item.make) {
      writer.WriteFloats(item.spec.name, item.make());
    } else {
      writer.Copy(item.spec.name, source.tensors());
      source.tensors().Release(item.spec.name);
    }
    progress.Report("write", ++done, total);
  }
  writer.Close();
}

}  // namespace

void WriteThinCheckpoint(const Checkpoint& source,
                         const KeyFactors& keys,
                         const std::vector<LayerFactors>& factors,
                         const std::filesystem::path& directory,
                         Progress& progress,
                         int64_t shard_bytes) {
  const auto shards = Shard(AllItems(source, keys, factors), shard_bytes);
  int64_t total = 0;
  for (const auto& shard : shards) total += static_cast<int64_t>(shard.size());
  int64_t done = 0;
  int64_t all_bytes = 0;
  Json weight_map = Json::object();
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string name = ShardName(s, shards.size());
    WriteShard(source, shards[s], directory / name, done, total, progress);
    for (const Item& item : shards[s]) {
      weight_map[item.spec.name] = name;
      all_bytes += item.bytes();
    }
  }
  if (shards.size() > 1) {
    WriteJsonFile(directory / "model.safetensors.index.json",
                  {{"metadata", {{"total_size", all_bytes}}}, {"weight_map", weight_map}});
  }
  WriteThinModel(source.config(), keys, directory);
  for (const auto& file : CompanionFiles(source.directory())) {
    CopyFile(file, directory / file.filename());
  }
}

}  // namespace kvc::factorize
