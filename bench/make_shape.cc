// make_shape CONFIG.json OUT [LAYERS] writes a checkpoint of random bf16 weights in the shape that
// a config.json of the Llama families describes, to measure the cost of sizes. LAYERS gives fewer
// layers than the file, of the same width.
//
// Shards of at most 2 GB with their index, and a tokenizer whose tokens are bytes, so that any text
// can be tokenized. Weights are uniform with the variance 1/columns, which keeps hidden states in
// range through any number of layers; norms are 1. Memory: one tensor.

#include <bit>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/checkpoint/model_config.h"
#include "core/checkpoint/weight_layout.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "core/io/safetensors.h"
#include "core/tokenizer/pretok.h"
#include "core/tokenizer/unicode.h"

namespace {

using kvc::Json;
using kvc::TensorSpec;

constexpr int64_t kShardBytes = 2'000'000'000;

// Every tensor of the checkpoint, in the order of the layers.
std::vector<TensorSpec> ListTensors(const kvc::ModelConfig& config) {
  std::vector<TensorSpec> specs;
  const auto add = [&](const kvc::RoleRow& row, const std::string& prefix, int64_t layer) {
    if (kvc::HasRole(config, row.role)) {
      specs.push_back({prefix + kvc::LocalName(config, row.role), kvc::DType::kBF16,
                       kvc::StoredShape(config, row.role, layer)});
    }
  };
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const kvc::RoleRow& row : kvc::kRoles) {
      if (!kvc::IsOuter(row.role)) add(row, "model.layers." + std::to_string(layer), layer);
    }
  }
  for (const kvc::RoleRow& row : kvc::kRoles) {
    if (!kvc::IsOuter(row.role)) continue;
    if (row.role != kvc::Role::kLmHead) {
      add(row, "model.", -1);
    } else if (!config.tied_embeddings) {
      add(row, "", -1);
    }
  }
  return specs;
}

int64_t CountOf(const TensorSpec& spec) {
  return std::accumulate(spec.shape.begin(), spec.shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<std::vector<TensorSpec>> Shard(const std::vector<TensorSpec>& specs) {
  std::vector<std::vector<TensorSpec>> shards(1);
  int64_t filled = 0;
  for (const TensorSpec& spec : specs) {
    const int64_t bytes = CountOf(spec) * kvc::DTypeBytes(spec.dtype);
    if (filled > 0 && filled + bytes > kShardBytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += bytes;
    shards.back().push_back(spec);
  }
  return shards;
}

// bf16 numbers of the tensor: four of each random word.
std::vector<uint16_t> MakeNumbers(const TensorSpec& spec, kvc::Rng& rng) {
  std::vector<uint16_t> numbers(static_cast<size_t>(CountOf(spec)));
  if (spec.shape.size() == 1) {  // a norm
    numbers.assign(numbers.size(), kvc::FloatToBF16(1.0F));
    return numbers;
  }
  // A uniform number of [-2^15, 2^15) has the variance 2^30 / 3.
  const auto unit =
      static_cast<float>(std::sqrt(3.0 / static_cast<double>(spec.shape[1])) / (1 << 15));
  uint64_t word = 0;
  for (size_t i = 0; i < numbers.size(); ++i, word >>= 16) {
    if (i % 4 == 0) word = rng.NextU64();
    const auto value = static_cast<float>(static_cast<int16_t>(word & 0xffffU)) * unit;
    numbers[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  }
  return numbers;
}

void WriteWeights(const kvc::ModelConfig& config, const std::filesystem::path& directory) {
  const auto shards = Shard(ListTensors(config));
  Json weight_map = Json::object();
  int64_t total = 0;
  kvc::Rng rng(1);
  for (size_t s = 0; s < shards.size(); ++s) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", s + 1, shards.size());
    kvc::SafetensorsWriter writer(directory / name, shards[s], {{"format", "pt"}});
    for (const TensorSpec& spec : shards[s]) {
      const std::vector<uint16_t> numbers = MakeNumbers(spec, rng);
      writer.Write(spec.name, std::as_bytes(std::span(numbers)));
      weight_map[spec.name] = name;
      total += CountOf(spec) * kvc::DTypeBytes(spec.dtype);
    }
    writer.Close();
  }
  kvc::WriteJsonFile(directory / "model.safetensors.index.json",
                     {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}});
  std::cout << shards.size() << " files, " << static_cast<double>(total) * 1e-9 << " GB\n";
}

// Byte-level BPE without a merge: token id = byte.
void WriteTokenizer(const std::filesystem::path& directory) {
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    kvc::tokenizer::AppendUtf8(kvc::tokenizer::ByteLevelCharacter(static_cast<uint8_t>(byte)),
                               token);
    vocabulary[token] = byte;
  }
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  kvc::WriteJsonFile(
      directory / "tokenizer.json",
      {{"version", "1.0"},
       {"added_tokens", Json::array()},
       {"normalizer", nullptr},
       {"pre_tokenizer", byte_level},
       {"post_processor", nullptr},
       {"decoder", byte_level},
       {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", Json::array()}}}});
}

void Make(const std::filesystem::path& config_file,
          const std::filesystem::path& target,
          const std::string& layers) {
  Json json = kvc::ReadJsonFile(config_file, 1 << 20);
  if (!layers.empty()) json["num_hidden_layers"] = std::stoll(layers);
  const kvc::ModelConfig config = kvc::ParseModelConfig(json, config_file.string());
  KVC_CHECK(config.family != kvc::Family::kGpt2, kUnsupported,
            "{}: expected a Llama family, got gpt2", config_file.string());
  kvc::OutputDirectory output(target, {config_file}, /*force=*/false);
  kvc::WriteJsonFile(output.path() / "config.json", json);
  WriteTokenizer(output.path());
  WriteWeights(config, output.path());
  output.Commit();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::cerr << "usage: make_shape CONFIG.json OUT [LAYERS]\n";
    return 2;
  }
  try {
    Make(argv[1], argv[2], argc == 4 ? argv[3] : "");
  } catch (const std::exception& error) {
    std::cerr << "make_shape: error: " << error.what() << "\n";
    return 3;
  }
  return 0;
}
