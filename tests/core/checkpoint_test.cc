#include "core/checkpoint/checkpoint.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/fuzz_file.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = kvc::testing::SourceRoot() / "tests/golden/models";

TEST(Checkpoint, OpensEveryGoldenModel) {
  int opened = 0;
  for (const auto& entry : fs::directory_iterator(kModels)) {
    if (!entry.is_directory()) {
      continue;
    }
    SCOPED_TRACE(entry.path().filename());
    const Checkpoint checkpoint = Checkpoint::Open(entry.path());
    for (int64_t layer = 0; layer < checkpoint.config().num_layers; ++layer) {
      for (int role = 0; role <= static_cast<int>(Role::kDownBias); ++role) {
        if (checkpoint.Has(static_cast<Role>(role), layer)) {
          const std::vector<int64_t> shape = checkpoint.Shape(static_cast<Role>(role), layer);
          const int64_t size =
              std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
          const auto values = checkpoint.Load(static_cast<Role>(role), layer);
          EXPECT_EQ(static_cast<int64_t>(values.size()), size);
        }
      }
      checkpoint.ReleaseLayer(layer);
    }
    EXPECT_FALSE(checkpoint.Load(Role::kLmHead).empty());
    ++opened;
  }
  EXPECT_EQ(opened, 39);
}

// Element [out, in] of a role, looked up in the file by the layout's definition.
float StoredElement(const Checkpoint& checkpoint, const std::string& name, int64_t index) {
  const TensorRef& tensor = checkpoint.tensors().Get(name);
  float value = 0.0F;
  ConvertToFloat(tensor.dtype, tensor.bytes.data() + index * DTypeBytes(tensor.dtype), 1, &value);
  return value;
}

TEST(Checkpoint, UnfusesAndTransposesGpt2) {
  for (const std::string prefix : {"transformer.", ""}) {
    const Checkpoint checkpoint =
        Checkpoint::Open(kModels / (prefix.empty() ? "gpt2-bare" : "gpt2"));
    const std::string name = prefix + "h.1.attn.c_attn.weight";  // [32, 96]
    const std::vector<Role> roles = {Role::kQ, Role::kK, Role::kV};
    for (int64_t part = 0; part < 3; ++part) {
      const std::vector<float> weight = checkpoint.Load(roles[static_cast<size_t>(part)], 1);
      ASSERT_EQ(weight.size(), 32U * 32U);
      for (int64_t out = 0; out < 32; ++out) {
        for (int64_t in = 0; in < 32; ++in) {
          ASSERT_EQ(weight[static_cast<size_t>(out * 32 + in)],
                    StoredElement(checkpoint, name, in * 96 + part * 32 + out));
        }
      }
    }
    const std::vector<float> bias = checkpoint.Load(Role::kVBias, 1);
    EXPECT_EQ(bias[5], StoredElement(checkpoint, prefix + "h.1.attn.c_attn.bias", 64 + 5));
    const std::vector<int64_t> up_shape = checkpoint.Shape(Role::kUp, 0);
    const std::vector<float> up = checkpoint.Load(Role::kUp, 0);
    EXPECT_EQ(up[static_cast<size_t>(37 * 32 + 3)],
              StoredElement(checkpoint, prefix + "h.0.mlp.c_fc.weight", 3 * up_shape[0] + 37));
  }
}

TEST(Checkpoint, ThinShapes) {
  const Checkpoint absorb = Checkpoint::Open(kModels / "gpt2-absorb");  // 3, 8, 1, 5 in layer 0
  EXPECT_EQ(absorb.Shape(Role::kQ, 0), (std::vector<int64_t>{17, 32}));
  EXPECT_EQ(absorb.Shape(Role::kK, 0), (std::vector<int64_t>{17, 32}));
  EXPECT_FALSE(absorb.Has(Role::kKBias, 0));
  EXPECT_TRUE(absorb.Has(Role::kQBias, 0));
  EXPECT_EQ(absorb.Place(Role::kV, 0).out_begin, 34);
  EXPECT_EQ(absorb.Load(Role::kV, 0), Checkpoint::Open(kModels / "gpt2").Load(Role::kV, 0));
  const Checkpoint latent = Checkpoint::Open(kModels / "llama-latent");  // 6, 3 and 5, 16; 2 x 16
  EXPECT_EQ(latent.Shape(Role::kK, 0), (std::vector<int64_t>{9, 32}));
  EXPECT_EQ(latent.Shape(Role::kKRebuild, 0), (std::vector<int64_t>{32, 6}));
  EXPECT_EQ(latent.Shape(Role::kQ, 1), (std::vector<int64_t>{64, 32}));
  const Checkpoint qwen2 = Checkpoint::Open(kModels / "qwen2-latent");
  EXPECT_EQ(qwen2.Shape(Role::kKBias, 0), (std::vector<int64_t>{16}));
}

TEST(Checkpoint, RolesOfTheFamilies) {
  const Checkpoint llama = Checkpoint::Open(kModels / "llama");
  EXPECT_EQ(llama.Place(Role::kLmHead).name, "model.embed_tokens.weight");  // tied
  EXPECT_EQ(llama.Place(Role::kQ, 1).name, "model.layers.1.self_attn.q_proj.weight");
  EXPECT_EQ(llama.StoredType(Role::kQ, 1), DType::kBF16);
  EXPECT_FALSE(llama.Has(Role::kQBias, 0) || llama.Has(Role::kPositionEmbedding) ||
               llama.Has(Role::kQNorm, 0) || llama.Has(Role::kQ, 2) || llama.Has(Role::kQ) ||
               llama.Has(Role::kEmbedding, 0));
  EXPECT_KVC_ERROR((void)llama.Load(Role::kQBias, 0), kInternal, "role");
  const Checkpoint bias = Checkpoint::Open(kModels / "llama-bias");
  EXPECT_EQ(bias.Place(Role::kLmHead).name, "lm_head.weight");
  EXPECT_TRUE(bias.Has(Role::kOBias, 0) && bias.Has(Role::kGateBias, 0) &&
              bias.Has(Role::kDownBias, 1));
  const Checkpoint qwen3 = Checkpoint::Open(kModels / "qwen3");
  EXPECT_EQ(qwen3.Shape(Role::kKNorm, 0), (std::vector<int64_t>{24}));
  EXPECT_EQ(qwen3.config().eos_ids, (std::vector<int32_t>{5, 7}));
}

// Copies a golden model into DIR with one tensor changed: dropped when `change` returns false.
struct Copy {
  TensorSpec spec;
  std::vector<float> values;
};
using Change = std::function<bool(Copy&)>;

void CopyModel(const std::string& name, const fs::path& dir, const Change& change) {
  CopyFile(kModels / name / "config.json", dir / "config.json");
  const SafetensorsReader reader = SafetensorsReader::OpenDirectory(kModels / name);
  std::vector<Copy> copies;
  for (const std::string& tensor : reader.names()) {
    const TensorRef& source = reader.Get(tensor);
    Copy copy{{tensor, DType::kF32, source.shape}, {}};
    copy.values.resize(static_cast<size_t>(source.num_elements()));
    ConvertToFloat(source.dtype, source.bytes.data(), source.num_elements(), copy.values.data());
    if (change(copy)) {
      copies.push_back(copy);
    }
  }
  std::vector<TensorSpec> specs;
  specs.reserve(copies.size());
  for (const Copy& copy : copies) {
    specs.push_back(copy.spec);
  }
  SafetensorsWriter writer(dir / "model.safetensors", specs);
  for (const Copy& copy : copies) {
    if (copy.spec.dtype == DType::kF32) {
      writer.WriteFloats(copy.spec.name, copy.values);
    } else {
      writer.Write(copy.spec.name, std::as_bytes(std::span(copy.values)));
    }
  }
  writer.Close();
}

TEST(Checkpoint, NamesWhatIsMissingOrMisshapen) {
  const testing::TempDir dir;
  const std::string key = "model.layers.1.self_attn.k_proj.weight";
  CopyModel("mistral", dir.path(), [&](Copy& copy) { return copy.spec.name != key; });
  EXPECT_KVC_ERROR((void)Checkpoint::Open(dir.path()), kBadInput, key);
  CopyModel("mistral", dir.path(), [&](Copy& copy) { return copy.spec.name != "lm_head.weight"; });
  EXPECT_KVC_ERROR((void)Checkpoint::Open(dir.path()), kBadInput, "tie_word_embeddings");
  CopyModel("mistral", dir.path(), [&](Copy& copy) {
    if (copy.spec.name == key) {
      std::swap(copy.spec.shape[0], copy.spec.shape[1]);
    }
    return true;
  });
  EXPECT_KVC_ERROR((void)Checkpoint::Open(dir.path()), kBadShape,
                   key + ": expected shape [16, 40], got [40, 16]");
  CopyModel("mistral", dir.path(), [&](Copy& copy) {
    copy.spec.dtype = copy.spec.name == key ? DType::kI32 : DType::kF32;
    return true;
  });
  EXPECT_KVC_ERROR((void)Checkpoint::Open(dir.path()), kUnsupported, "I32");
  EXPECT_KVC_ERROR((void)Checkpoint::Open(dir / "none"), kIo, "none");
}

TEST(Checkpoint, RefusesNaNAndInfinityWhenLoaded) {
  for (const float poison :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    const testing::TempDir dir;
    CopyModel("mistral", dir.path(), [&](Copy& copy) {
      if (copy.spec.name == "model.layers.0.self_attn.q_proj.weight") {
        copy.values[3 * 40 + 7] = poison;
      }
      return true;
    });
    const Checkpoint checkpoint = Checkpoint::Open(dir.path());
    EXPECT_NO_THROW((void)checkpoint.Load(Role::kK, 0));
    EXPECT_KVC_ERROR((void)checkpoint.Load(Role::kQ, 0), kNumeric,
                     "model.layers.0.self_attn.q_proj.weight");
    EXPECT_KVC_ERROR((void)checkpoint.Load(Role::kQ, 0), kNumeric, "row 3, column 7");
  }
}

TEST(Checkpoint, BareLlamaWithoutPrefix) {
  const testing::TempDir dir;
  CopyModel("llama", dir.path(), [](Copy& copy) {
    copy.spec.name = copy.spec.name.substr(std::string("model.").size());
    return true;
  });
  const Checkpoint bare = Checkpoint::Open(dir.path());
  EXPECT_EQ(bare.Load(Role::kK, 1), Checkpoint::Open(kModels / "llama").Load(Role::kK, 1));
}

// CopyModel, with tensors of its own behind.
void CopyAndAdd(const std::string& name, const fs::path& dir, const std::vector<Copy>& more) {
  CopyModel(name, dir, [](Copy&) { return true; });
  const SafetensorsReader reader = SafetensorsReader::OpenDirectory(dir);
  std::vector<TensorSpec> specs;
  for (const std::string& tensor : reader.names()) {
    specs.push_back({tensor, reader.Get(tensor).dtype, reader.Get(tensor).shape});
  }
  for (const Copy& copy : more) specs.push_back(copy.spec);
  SafetensorsWriter writer(dir / "model.safetensors", specs);
  for (const std::string& tensor : reader.names()) writer.Copy(tensor, reader);
  for (const Copy& copy : more) {
    const auto bytes = std::as_bytes(std::span(copy.values));
    writer.Write(copy.spec.name, bytes.first(static_cast<size_t>(copy.spec.shape[0] *
                                                                 DTypeBytes(copy.spec.dtype))));
  }
  writer.Close();
}

TEST(Checkpoint, NamesTensorsThatNobodyReads) {
  EXPECT_TRUE(Checkpoint::Open(kModels / "llama").warnings().empty());
  EXPECT_TRUE(Checkpoint::Open(kModels / "gpt2").warnings().empty());
  EXPECT_TRUE(Checkpoint::Open(kModels / "stablelm").warnings().empty());  // heeds its share
  const testing::TempDir dir;
  const std::string attention = "model.layers.0.self_attn.";
  const std::vector<float> values(16, 1.0F);
  CopyAndAdd("llama", dir.path(),
             {{{attention + "q_proj.bias", DType::kF32, {4}}, values},
              {{"model.layers.1.self_attn.q_proj.bias", DType::kF32, {4}}, values},
              {{attention + "q_proj.lora_A.weight", DType::kF16, {4}}, values},
              {{attention + "rotary_emb.inv_freq", DType::kF32, {4}}, values},
              {{"model.layers.2.mlp.up_proj.weight", DType::kF32, {4}}, values},
              {{"model.layers.2.mlp.down_proj.weight", DType::kF32, {4}}, values},
              {{"model.position_ids", DType::kI64, {2}}, values}});
  const Checkpoint checkpoint = Checkpoint::Open(dir.path());
  ASSERT_EQ(checkpoint.warnings().size(), 1U);
  EXPECT_EQ(checkpoint.warnings()[0],
            dir.path().string() +
                ": 6 tensors that config.json does not announce are left out: "
                "model.layers.*.self_attn.q_proj.bias (2), "
                "model.layers.*.self_attn.q_proj.lora_A.weight, model.layers.2.* (2), "
                "model.position_ids");
  EXPECT_EQ(checkpoint.Load(Role::kQ, 1), Checkpoint::Open(kModels / "llama").Load(Role::kQ, 1));
}

TEST(Checkpoint, AShareOfAHeadThatTheFamilyIgnoresIsNamed) {
  const testing::TempDir dir;
  CopyModel("llama", dir.path(), [](Copy&) { return true; });
  Json config = ReadJsonFile(dir / "config.json");
  config["rope_parameters"] = {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}};
  WriteJsonFile(dir / "config.json", config);
  const Checkpoint checkpoint = Checkpoint::Open(dir.path());
  ASSERT_EQ(checkpoint.warnings().size(), 1U);
  EXPECT_EQ(checkpoint.warnings()[0],
            dir.path().string() +
                ": partial_rotary_factor 0.5 is ignored, as in transformers: llama rotates whole "
                "heads");
}

TEST(Checkpoint, AnIndexMayNameUnusedTensorsInVain) {
  const testing::TempDir dir;
  CopyModel("llama", dir.path(), [](Copy&) { return true; });
  Json map;
  {
    const SafetensorsReader reader = SafetensorsReader::OpenDirectory(dir.path());
    for (const std::string& name : reader.names()) map[name] = "one.safetensors";
  }
  fs::rename(dir / "model.safetensors", dir / "one.safetensors");
  map["model.layers.0.self_attn.k_scale"] = "one.safetensors";
  WriteJsonFile(dir / "model.safetensors.index.json", {{"weight_map", map}});
  const Checkpoint checkpoint = Checkpoint::Open(dir.path());
  ASSERT_EQ(checkpoint.warnings().size(), 1U);
  EXPECT_NE(checkpoint.warnings()[0].find(
                "the index names tensors that no file holds: model.layers.*.self_attn.k_scale"),
            std::string::npos);
}

TEST(Checkpoint, TiedPairUnderTheHeadsName) {
  const testing::TempDir dir;
  CopyModel("llama", dir.path(), [](Copy& copy) {
    if (copy.spec.name == "model.embed_tokens.weight") copy.spec.name = "lm_head.weight";
    return true;
  });
  const Checkpoint renamed = Checkpoint::Open(dir.path());
  const Checkpoint usual = Checkpoint::Open(kModels / "llama");
  EXPECT_TRUE(renamed.warnings().empty() && renamed.config().tied_embeddings);
  EXPECT_EQ(renamed.Load(Role::kEmbedding), usual.Load(Role::kEmbedding));
  EXPECT_EQ(renamed.Load(Role::kLmHead), usual.Load(Role::kLmHead));
  EXPECT_EQ(renamed.Load(Role::kK, 1), usual.Load(Role::kK, 1));
}

TEST(Checkpoint, AHeadOfItsOwnBesideTiedIsUsed) {
  const Checkpoint usual = Checkpoint::Open(kModels / "llama");
  std::vector<float> head = usual.Load(Role::kEmbedding);
  const auto open = [&](const fs::path& dir) {
    CopyModel("llama", dir, [&](Copy&) { return true; });
    const SafetensorsReader reader = SafetensorsReader::OpenDirectory(dir);
    std::vector<TensorSpec> specs;
    for (const std::string& name : reader.names()) {
      specs.push_back({name, DType::kF32, reader.Get(name).shape});
    }
    specs.push_back({"lm_head.weight", DType::kF32, usual.Shape(Role::kEmbedding)});
    SafetensorsWriter writer(dir / "model.safetensors", specs);
    for (const std::string& name : reader.names()) writer.Copy(name, reader);
    writer.WriteFloats("lm_head.weight", head);
    writer.Close();
    return Checkpoint::Open(dir);
  };
  const testing::TempDir same;
  const Checkpoint tied = open(same.path());
  EXPECT_TRUE(tied.warnings().empty() && tied.config().tied_embeddings);
  head.back() += 1.0F;
  const testing::TempDir other;
  const Checkpoint apart = open(other.path());
  EXPECT_FALSE(apart.config().tied_embeddings);
  EXPECT_EQ(apart.Load(Role::kLmHead), head);
  EXPECT_EQ(apart.Load(Role::kEmbedding), usual.Load(Role::kEmbedding));
  ASSERT_EQ(apart.warnings().size(), 1U);
  EXPECT_NE(apart.warnings()[0].find("lm_head.weight differs from model.embed_tokens.weight"),
            std::string::npos);
}

TEST(Checkpoint, NamesAFileWhereADirectoryBelongs) {
  const testing::TempDir dir;
  WriteFile(dir / "model.gguf", std::string("GGUF\x03\0\0\0", 8));
  EXPECT_KVC_ERROR((void)Checkpoint::Open(dir / "model.gguf"), kBadInput,
                   "expected the directory of a model, got a GGUF file");
}

TEST(Checkpoint, BrokenFilesAreErrors) {
  for (const char* name : {"llama-latent", "gpt2", "qwen3-post-rope"}) {
    SCOPED_TRACE(name);
    const testing::TempDir directory;
    fs::copy(kModels / name, directory.path());
    const auto open = [&] {
      const Checkpoint checkpoint = Checkpoint::Open(directory.path());
      static_cast<void>(checkpoint.Load(Role::kFinalNorm));
    };
    testing::FuzzBytes(directory / "config.json", open);
    testing::FuzzValues(directory / "config.json", open);
  }
}

// A header of which some value is another one, before the data as they were.
TEST(Checkpoint, BrokenHeadersAreErrors) {
  const testing::TempDir directory;
  fs::copy(kModels / "llama-latent", directory.path());
  const auto broken = [](const std::string& good, std::mt19937& random) {
    uint64_t length = 0;
    std::memcpy(&length, good.data(), sizeof(length));
    Json header = ParseJson(std::string_view(good).substr(8, length), "header");
    testing::MutateValue(header, random);
    const std::string text = header.dump();
    const uint64_t new_length = text.size();
    std::string bytes(sizeof(new_length), '\0');
    std::memcpy(bytes.data(), &new_length, sizeof(new_length));
    return bytes + text + good.substr(8 + length);
  };
  const auto open = [&] {
    const Checkpoint checkpoint = Checkpoint::Open(directory.path());
    static_cast<void>(checkpoint.Load(Role::kEmbedding));
  };
  testing::FuzzFile(directory / "model.safetensors", broken, open);
}

TEST(Checkpoint, CompanionFiles) {
  const testing::TempDir dir;
  for (const char* name : {"tokenizer.json", "merges.txt", "config.json", "other.txt"}) {
    WriteFile(dir / name, "x");
  }
  EXPECT_EQ(CompanionFiles(dir.path()),
            (std::vector<fs::path>{dir / "tokenizer.json", dir / "merges.txt"}));
}

TEST(Checkpoint, SmolLm2) {
  const fs::path directory = kvc::testing::SourceRoot() / "build/models/smollm2";
  if (!fs::exists(directory / "model.safetensors")) {
    GTEST_SKIP() << "no SmolLM2 at " << directory << ": make demo-smollm2 fetches it";
  }
  const Checkpoint checkpoint = Checkpoint::Open(directory);
  EXPECT_EQ(checkpoint.config().num_layers, 30);
  EXPECT_EQ(checkpoint.Load(Role::kK, 29).size(), 192U * 576U);
}

}  // namespace
}  // namespace kvc
