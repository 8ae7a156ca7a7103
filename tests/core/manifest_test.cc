#include "core/cache/manifest.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/fuzz_file.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

Manifest MakeManifest() {
  Manifest manifest;
  manifest.tool_version = "1.2.3";
  manifest.options = {{"budget", "25%"}, {"seed", 42}};
  manifest.source_name = "tiny";
  manifest.source_files["config.json"] = {std::string(64, 'a'), 12};
  manifest.model = ParseModelConfig(ParseJson(R"({
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "intermediate_size": 64,
    "vocab_size": 100, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "rope_theta": 10000.0, "tie_word_embeddings": true, "torch_dtype": "float32"})",
                                              "test"),
                                    "test");
  CacheSpec& cache = manifest.cache;
  cache.key_format = kRowsBF16;
  cache.value_format = kRowsBF16;
  cache.original_dtype = DType::kF16;
  manifest.weights_dtype = DType::kBF16;
  cache.method = Method::kLuKv;
  cache.scorer = ScorerKind::kKeyDiff;
  cache.margin = 8;
  cache.query_ring = 4;
  cache.tiers = {{1.0, 1.0}};
  cache.num_heads = 4;
  cache.num_kv_heads = 2;
  cache.head_width = 8;
  cache.layers = {{{4, 8, {0, 1}, true}}, {{8, 8, {0}, false}, {6, 8, {1}, false}}};
  cache.budget = {{0.25}, {0.125, 1.0 / 3.0}};
  manifest.budget = ParseBudget("25%", "--budget");
  manifest.solver = {0.5, 0.4375, 0.0625};
  manifest.reference_length = 1024;
  manifest.expected_bytes = {{1024, {4096, 1000, 1024}}};
  manifest.verification = {true, 1e-5, 1e-3, 32};
  manifest.files["model.onnx"] = {std::string(64, 'b'), 3};
  return manifest;
}

TEST(Manifest, RoundTripKeepsEveryField) {
  const Json json = ToJson(MakeManifest());
  const Manifest read = ManifestFromJson(json, "manifest.json");
  EXPECT_EQ(ToJson(read), json);
  EXPECT_EQ(read.cache.layers[0][0].heads, (std::vector<int64_t>{0, 1}));
  EXPECT_DOUBLE_EQ(read.cache.budget[1][1], 1.0 / 3.0);
  EXPECT_EQ(read.model.num_layers, 2);
}

// Bundles of models without windows keep their bytes.
TEST(Manifest, WindowsOfLayers) {
  Manifest manifest = MakeManifest();
  EXPECT_FALSE(ToJson(manifest)["cache"].contains("attention_windows"));
  manifest.cache.attention_windows = {0, 64};
  const Json json = ToJson(manifest);
  const Manifest read = ManifestFromJson(json, "manifest.json");
  EXPECT_EQ(read.cache.attention_windows, (std::vector<int64_t>{0, 64}));
  EXPECT_EQ(ToJson(read), json);
}

TEST(Manifest, FormatsOfKeysValuesAndTiers) {
  Manifest manifest = MakeManifest();
  manifest.cache.key_format = kRowsInt8;
  manifest.cache.tiers = {{1.0, 1.0}, {0.5, 0.5, {}, kRowsInt8}};
  const Json json = ToJson(manifest);
  EXPECT_FALSE(json["cache"].contains("dtype"));
  EXPECT_EQ(json["cache"]["key_dtype"], "int8");
  EXPECT_EQ(json["cache"]["value_dtype"], "bf16");
  const Manifest read = ManifestFromJson(json, "manifest.json");
  EXPECT_EQ(ToJson(read), json);
  EXPECT_EQ(read.cache.key_format, kRowsInt8);
  EXPECT_EQ(read.cache.value_format, kRowsBF16);
  EXPECT_EQ(read.cache.tiers, manifest.cache.tiers);
  EXPECT_EQ(read.cache.original_dtype, DType::kF16);
  EXPECT_EQ(read.weights_dtype, DType::kBF16);
}

TEST(Manifest, RowsInFewBitsAreFormatsOfTiersAndRecentRows) {
  Manifest manifest = MakeManifest();
  manifest.cache.tiers = {{1.0, 1.0}, {1.0, 1.0, kRowsX8, kRowsX8}, {1.0, 1.0, kRowsX4, kRowsX2}};
  manifest.cache.recent_format = kRowsX8;
  Json json = ToJson(manifest);
  EXPECT_EQ(json["cache"]["recent_dtype"], "x8");
  const Manifest read = ManifestFromJson(json, "manifest.json");
  EXPECT_EQ(ToJson(read), json);
  EXPECT_EQ(read.cache.tiers, manifest.cache.tiers);
  EXPECT_EQ(read.cache.recent_format, kRowsX8);
  json["cache"]["recent_dtype"] = "x3";
  EXPECT_KVC_ERROR((void)ManifestFromJson(json, "manifest.json"), kUnsupported, "x3");
  json["cache"]["recent_dtype"] = "x2";
  EXPECT_KVC_ERROR((void)ManifestFromJson(json, "manifest.json"), kBadInput, "add 1x2");
  json["cache"]["recent_dtype"] = "avg3";
  EXPECT_KVC_ERROR((void)ManifestFromJson(json, "manifest.json"), kUnsupported, "in avg3");
  json["cache"].erase("recent_dtype");
  Json mixed = json;
  mixed["cache"]["tiers"][2]["key_dtype"] = "avg3";
  EXPECT_EQ(ManifestFromJson(mixed, "manifest.json").cache.tiers[2].key_format, MixedRows(12));
  mixed["cache"]["tiers"][2]["key_dtype"] = "avg9";
  EXPECT_KVC_ERROR((void)ManifestFromJson(mixed, "manifest.json"), kUnsupported, "\"avg9\"");
  mixed["cache"]["tiers"][2]["key_dtype"] = "avg3";
  mixed["cache"]["tiers"][2]["key_share"] = 0.5;
  EXPECT_KVC_ERROR((void)ManifestFromJson(mixed, "manifest.json"), kUnsupported, "all dimensions");
  json["cache"]["dtype"] = "x8";
  EXPECT_KVC_ERROR((void)ManifestFromJson(json, "manifest.json"), kUnsupported, "formats of tiers");
}

// Bundles of older versions count budgets in the type of their weights and cache.
TEST(Manifest, OlderBundlesHaveOneType) {
  Json json = ToJson(MakeManifest());
  json.erase("weights_dtype");
  json["source"].erase("dtype");
  const Manifest read = ManifestFromJson(json, "manifest.json");
  EXPECT_EQ(read.weights_dtype, DType::kBF16);
  EXPECT_EQ(read.cache.original_dtype, DType::kBF16);
}

// Each edit breaks one thing; the message must name it.
struct BrokenCase {
  const char* name;
  std::function<void(Json&)> edit;
  const char* named;
};

TEST(Manifest, BrokenFilesAreRefusedByName) {
  const std::vector<BrokenCase> cases = {
      {"newer schema", [](Json& j) { j["schema_version"] = 2; }, "schema_version"},
      {"unknown top key", [](Json& j) { j["quantized"] = true; }, "quantized"},
      {"unknown cache key", [](Json& j) { j["cache"]["bits"] = 4; }, "bits"},
      {"missing cache", [](Json& j) { j.erase("cache"); }, "cache"},
      {"unknown method", [](Json& j) { j["cache"]["method"] = "h2o"; }, "h2o"},
      {"unknown scorer", [](Json& j) { j["cache"]["scorer"] = "luck"; }, "luck"},
      {"negative window", [](Json& j) { j["cache"]["window"] = -1; }, "window"},
      {"window beyond every text", [](Json& j) { j["cache"]["window"] = INT64_MAX; }, "window"},
      {"query ring beyond every text", [](Json& j) { j["cache"]["query_ring"] = 1LL << 31; },
       "query_ring"},
      {"no margin", [](Json& j) { j["cache"]["margin"] = 0; }, "margin"},
      {"head twice", [](Json& j) { j["cache"]["layers"][1][1]["heads"] = {0}; }, "twice"},
      {"head missing", [](Json& j) { j["cache"]["layers"][0][0]["heads"] = {0}; }, "kv heads"},
      {"head too large",
       [](Json& j) {
         j["cache"]["layers"][0][0]["heads"] = {0, 2};
       },
       "heads"},
      {"zero width", [](Json& j) { j["cache"]["layers"][0][0]["key_width"] = 0; }, "widths"},
      {"keys wider than their heads", [](Json& j) { j["cache"]["layers"][0][0]["key_width"] = 17; },
       "at most 8 for each of 2"},
      {"values wider than a head", [](Json& j) { j["cache"]["layers"][1][0]["value_width"] = 9; },
       "8 and 9"},
      {"heads beyond every model", [](Json& j) { j["cache"]["num_heads"] = 1LL << 40; },
       "num_heads"},
      {"width beyond every model", [](Json& j) { j["cache"]["head_width"] = 1LL << 60; },
       "head_width"},
      {"a share above all", [](Json& j) { j["cache"]["budget"]["values"][0][0] = 1.5; }, "0..1"},
      {"rows beyond every text",
       [](Json& j) {
         j["cache"]["budget"] = {{"unit", "rows"}, {"values", {{1e300}, {8, 8}}}};
       },
       "values"},
      {"budget too short", [](Json& j) { j["cache"]["budget"]["values"].erase(0); }, "values"},
      {"negative budget", [](Json& j) { j["cache"]["budget"]["values"][0][0] = -0.5; }, "values"},
      {"budget unit", [](Json& j) { j["cache"]["budget"]["unit"] = "bits"; }, "unit"},
      {"path as file",
       [](Json& j) {
         j["files"]["../x"] = {{"bytes", 1}, {"sha256", ""}};
       },
       "../x"},
      {"width as text", [](Json& j) { j["cache"]["head_width"] = "8"; }, "head_width"},
      {"windows of other layers", [](Json& j) { j["cache"]["attention_windows"] = {1}; },
       "attention_windows"},
      {"negative window",
       [](Json& j) {
         j["cache"]["attention_windows"] = {0, -1};
       },
       "attention_windows"},
      {"unknown format", [](Json& j) { j["cache"]["dtype"] = "int4"; }, "dtype: expected a row"},
      {"two formats", [](Json& j) { j["cache"]["key_dtype"] = "f16"; }, "key_dtype"},
      {"one of two formats",
       [](Json& j) {
         j["cache"].erase("dtype");
         j["cache"]["key_dtype"] = "f16";
       },
       "value_dtype"},
      {"unknown format of a tier", [](Json& j) { j["cache"]["tiers"][0]["key_dtype"] = "int2"; },
       "int2"},
      {"weights with scales", [](Json& j) { j["weights_dtype"] = "int8"; }, "weights_dtype"},
      {"original of an unknown type", [](Json& j) { j["source"]["dtype"] = "f8"; }, "f8"},
      {"tiers not descending",
       [](Json& j) {
         j["cache"]["tiers"] = {{{"key_share", 0.25}, {"value_share", 0.25}},
                                {{"key_share", 1.0}, {"value_share", 1.0}}};
       },
       "tiers"},
  };
  for (const BrokenCase& broken : cases) {
    SCOPED_TRACE(broken.name);
    Json json = ToJson(MakeManifest());
    broken.edit(json);
    try {
      (void)ManifestFromJson(json, "manifest.json");
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(broken.named), std::string::npos) << error.what();
    }
  }
}

TEST(Manifest, WrongValuesAreErrors) {
  const testing::TempDir directory;
  WriteJsonFile(directory / "manifest.json", ToJson(MakeManifest()));
  const auto open = [&] { static_cast<void>(ReadManifest(directory.path())); };
  testing::FuzzBytes(directory / "manifest.json", open);
  testing::FuzzValues(directory / "manifest.json", open);
}

TEST(Manifest, ChangedFilesAreFound) {
  const auto directory = std::filesystem::path(::testing::TempDir()) / "kvc_manifest_test";
  std::filesystem::create_directories(directory);
  WriteFile(directory / "model.onnx", "abc");
  Manifest manifest = MakeManifest();
  manifest.files["model.onnx"] = {Sha256File(directory / "model.onnx"), 3};
  EXPECT_NO_THROW(CheckBundleFiles(manifest, directory, true));
  WriteFile(directory / "model.onnx", "abd");
  EXPECT_NO_THROW(CheckBundleFiles(manifest, directory, false));
  EXPECT_THROW(CheckBundleFiles(manifest, directory, true), Error);
  WriteFile(directory / "model.onnx", "abcd");
  EXPECT_THROW(CheckBundleFiles(manifest, directory, false), Error);
  std::filesystem::remove_all(directory);
  EXPECT_THROW(CheckBundleFiles(manifest, directory, false), Error);
}

// A byte that changes what runs, in any field, and a file beside those that are listed.
TEST(Manifest, NoFieldChangesUnnoticed) {
  const testing::TempDir dir;
  const std::filesystem::path& directory = dir.path();
  Manifest manifest = MakeManifest();
  const Json written = ToJson(manifest);
  WriteJsonFile(directory / "manifest.json", written);
  EXPECT_NO_THROW(CheckBundleIsWhole(manifest, directory));
  const std::string text = ReadFile(directory / "manifest.json");
  for (const char* number : {"\"num_hidden_layers\": 2", "\"vocab_size\": 100", "\"sinks\": 4",
                             "\"bytes\": 12", "\"seed\": 42", "\"reference_length\": 1024"}) {
    const size_t at = text.find(number);
    ASSERT_NE(at, std::string::npos) << number;
    std::string changed = text;
    changed[at + std::string(number).size() - 1] ^= 1;
    WriteFile(directory / "manifest.json", changed);
    EXPECT_THROW(CheckBundleIsWhole(manifest, directory), Error) << number;
  }
  Json older = written;
  older.erase("sha256");
  WriteJsonFile(directory / "manifest.json", older);
  EXPECT_NO_THROW(CheckBundleIsWhole(manifest, directory));
  WriteFile(directory / ".hidden", "");
  EXPECT_NO_THROW(CheckBundleIsWhole(manifest, directory));
  WriteFile(directory / "generation_config.json", "{}");
  EXPECT_THROW(CheckBundleIsWhole(manifest, directory), Error);
  manifest.files["generation_config.json"] = {std::string(64, 'c'), 2};
  EXPECT_NO_THROW(CheckBundleIsWhole(manifest, directory));
}

}  // namespace
}  // namespace kvc
