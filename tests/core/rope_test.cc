// Rotations as config.json gives them. What each case expects is what transformers 5.23 makes of
// the same file: rope_parameters, inv_freq and attention_scaling of its rotary embedding.

#include "core/checkpoint/rope.h"

#include <cmath>
#include <iterator>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/checkpoint/model_config.h"
#include "core/io/json.h"
#include "tests/support/expect_error.h"

namespace kvc {
namespace {

// Eight heads of width 8 and a context of 512 tokens, plus `changes`.
ModelConfig Parse(const std::string& type, const std::string& changes) {
  Json config = ParseJson(R"({"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2,
      "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
      "max_position_embeddings": 512})",
                          "config.json");
  config["model_type"] = type;
  config.update(ParseJson(changes, "changes"));
  return ParseModelConfig(config, "config.json");
}

struct RopeCase {
  const char* name;
  const char* changes;
  std::vector<double> frequencies;
  double attention_factor = 1.0;
  int64_t length = 0;
  const char* type = "llama";
};

const std::vector<RopeCase>& Cases() {
  static const std::vector<RopeCase> kCases = {
      {"ScalingBesideParameters",
       R"({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
           "rope_scaling": {"rope_type": "linear", "factor": 4.0}})",
       {0.25, 0.025, 0.0025, 0.00025}},
      {"BaseBesideScaling",
       R"({"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6},
           "rope_scaling": {"type": "linear", "factor": 4.0}})",
       {0.25, 0.009401507675647736, 0.0003535533614922315, 1.3295739336172119e-05}},
      {"BaseInsideScaling",
       R"({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0, "rope_theta": 3e5}})",
       {0.25, 0.010682174935936928, 0.0004564354894682765, 1.9502893337630667e-05}},
      {"EmptyScaling",
       R"({"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": {}})",
       {1.0, 0.03162277862429619, 0.0010000000474974513, 3.162277425872162e-05}},
      {"TypeOfBothNames",
       R"({"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 2.0}})",
       {1.0, 0.1, 0.01, 0.001}},
      {"YarnInTheWholeContext",
       R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})",
       {1.0, 0.0625, 0.0025, 0.00025},
       1.138629436111989},
      {"YarnContextInside",
       R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0,
           "original_max_position_embeddings": 32}})",
       {1.0, 0.025, 0.0025, 0.00025},
       1.138629436111989},
      {"YarnContextBesideWins",
       R"({"original_max_position_embeddings": 64, "rope_scaling": {"rope_type": "yarn",
           "factor": 4.0, "original_max_position_embeddings": 32}})",
       {1.0, 0.0625, 0.0025, 0.00025},
       1.138629436111989},
      {"YarnFactorFromContexts",
       R"({"rope_scaling": {"rope_type": "yarn", "factor": null,
           "original_max_position_embeddings": 128}})",
       {1.0, 0.0625, 0.0025, 0.00025},
       1.138629436111989},
      {"YarnBothScales",
       R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7,
           "mscale_all_dim": 1.2, "original_max_position_embeddings": 128}})",
       {1.0, 0.0625, 0.0025, 0.00025},
       0.9405715251010841},
      {"YarnOneScaleIsNone",
       R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7,
           "original_max_position_embeddings": 128}})",
       {1.0, 0.0625, 0.0025, 0.00025},
       1.138629436111989},
      {"YarnOwnFactorAndEmptyBetas",
       R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 0.5,
           "beta_fast": 0, "beta_slow": null, "original_max_position_embeddings": 128}})",
       {1.0, 0.0625, 0.0025, 0.00025},
       0.5},
      {"YarnWithoutTruncation",
       R"({"rope_theta": 100, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 6,
           "beta_slow": 2, "truncate": false, "original_max_position_embeddings": 128}})",
       {1.0, 0.3162277638912201, 0.026257557794451714, 0.007905694656074047},
       1.138629436111989},
      {"YarnTruncated",
       R"({"rope_theta": 100, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 6,
           "beta_slow": 2, "original_max_position_embeddings": 128}})",
       {1.0, 0.3162277638912201, 0.0625, 0.007905694656074047},
       1.138629436111989},
      {"Llama3InTheWholeContext",
       R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0}})",
       {1.0, 0.1, 0.00125, 0.000125}},
      {"Llama3ContextBesideWins",
       R"({"original_max_position_embeddings": 64, "rope_scaling": {"rope_type": "llama3",
           "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 32}})",
       {1.0, 0.013042256236076355, 0.00125, 0.000125}},
      {"LongRopeShort",
       R"({"original_max_position_embeddings": 64, "rope_scaling": {"rope_type": "longrope",
           "short_factor": [1, 1.5, 2, 2.5], "long_factor": [2, 4, 6, 8]}})",
       {1.0, 0.06666667014360428, 0.005, 0.0004},
       1.224744871391589,
       64},
      {"LongRopeLong",
       R"({"original_max_position_embeddings": 64, "rope_scaling": {"rope_type": "longrope",
           "short_factor": [1, 1.5, 2, 2.5], "long_factor": [2, 4, 6, 8]}})",
       {0.5, 0.025, 0.01 / 6, 0.000125},
       1.224744871391589,
       65},
      {"LongRopeFactor",
       R"({"rope_scaling": {"rope_type": "longrope", "factor": 4.0,
           "original_max_position_embeddings": 64, "short_factor": [1, 1.5, 2, 2.5],
           "long_factor": [2, 4, 6, 8]}})",
       {1.0, 0.06666667014360428, 0.005, 0.0004},
       1.1547005383792517},
      {"LongRopeOwnAttentionFactor",
       R"({"rope_scaling": {"rope_type": "longrope", "attention_factor": 1.25,
           "original_max_position_embeddings": 64, "short_factor": [1, 1.5, 2, 2.5],
           "long_factor": [2, 4, 6, 8]}})",
       {1.0, 0.06666667014360428, 0.005, 0.0004},
       1.25},
      {"LongRopeWithoutContext",
       R"({"rope_scaling": {"rope_type": "longrope", "short_factor": [1, 1.5, 2, 2.5],
           "long_factor": [2, 4, 6, 8]}})",
       {1.0, 0.06666667014360428, 0.005, 0.0004}},
      // Heeds no original context of its own.
      {"DynamicWithinTheContext",
       R"({"rope_scaling": {"type": "dynamic", "factor": 2.0,
           "original_max_position_embeddings": 64}})",
       {1.0, 0.1, 0.01, 0.001},
       1.0,
       512},
      {"SmolLm3Base",
       "{}",
       {1.0, 0.026591479778289795, 0.000707106722984463, 1.8803015336743556e-05},
       1.0,
       0,
       "smollm3"},
      {"StableLmShare", "{}", {1.0}, 1.0, 0, "stablelm"},
      {"StableLmShareBeside", R"({"partial_rotary_factor": 0.5})", {1.0, 0.01}, 1.0, 0, "stablelm"},
      {"StableLmShareInsideWins",
       R"({"partial_rotary_factor": 0.5, "rope_scaling": {"type": "linear", "factor": 2.0,
           "partial_rotary_factor": 0.75}})",
       {0.5, 0.02320794202387333, 0.001077217166312039},
       1.0,
       0,
       "stablelm"},
  };
  return kCases;
}

class RopeTest : public ::testing::TestWithParam<RopeCase> {};

TEST_P(RopeTest, IsWhatTransformersMakesOfTheFile) {
  const ModelConfig config = Parse(GetParam().type, GetParam().changes);
  const std::vector<double> frequencies =
      RopeInverseFrequencies(config.rope, config.head_width, GetParam().length);
  ASSERT_EQ(frequencies.size(), GetParam().frequencies.size());
  EXPECT_EQ(config.rotary_width(), 2 * std::ssize(frequencies));
  for (size_t j = 0; j < frequencies.size(); ++j) {
    EXPECT_NEAR(frequencies[j], GetParam().frequencies[j], 1e-6 * frequencies[j]) << "pair " << j;
  }
  EXPECT_NEAR(config.rope.attention_factor, GetParam().attention_factor, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Configurations,
                         RopeTest,
                         ::testing::ValuesIn(Cases()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Rope, PlainAndLinear) {
  RopeConfig rope;
  rope.theta = 100.0;
  const std::vector<double> plain = RopeInverseFrequencies(rope, 4);
  ASSERT_EQ(plain.size(), 2U);
  EXPECT_DOUBLE_EQ(plain[0], 1.0);
  EXPECT_DOUBLE_EQ(plain[1], 0.1);
  rope.scaling = RopeScaling::kLinear;
  rope.factor = 4.0;
  EXPECT_DOUBLE_EQ(RopeInverseFrequencies(rope, 4)[1], 0.025);
  EXPECT_KVC_ERROR((void)RopeInverseFrequencies(rope, 5), kBadShape, "even");
}

// From the description of the scaling: short wavelengths stay, long ones are stretched by the
// factor, between them the share of the unscaled frequency falls linearly in context / wavelength.
TEST(Rope, Llama3Bands) {
  RopeConfig rope{500000.0, RopeScaling::kLlama3, 8.0, 1.0, 4.0, 8192};
  RopeConfig plain_config = rope;
  plain_config.scaling = RopeScaling::kNone;
  const std::vector<double> scaled = RopeInverseFrequencies(rope, 128);
  const std::vector<double> plain = RopeInverseFrequencies(plain_config, 128);
  int kept = 0;
  int stretched = 0;
  int blended = 0;
  for (size_t j = 0; j < plain.size(); ++j) {
    const double turns = 8192.0 * plain[j] / (2.0 * std::numbers::pi);  // over the old context
    if (turns > 4.0) {
      EXPECT_EQ(scaled[j], plain[j]);
      ++kept;
    } else if (turns < 1.0) {
      EXPECT_DOUBLE_EQ(scaled[j], plain[j] / 8.0);
      ++stretched;
    } else {
      const double share = (turns - 1.0) / 3.0;
      EXPECT_NEAR(scaled[j], plain[j] * (share + (1.0 - share) / 8.0), 1e-12 * plain[j]);
      ++blended;
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(stretched, 0);
  EXPECT_GT(blended, 0);
}

// base' = base (f n / C - (f - 1))^(r / (r - 2)) beyond C tokens, with r = 8 here.
TEST(Rope, DynamicBaseGrowsWithTheLength) {
  const RopeConfig rope =
      Parse("llama", R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})").rope;
  EXPECT_TRUE(DependsOnLength(rope));
  const double base = 10000.0 * std::pow(2.0 * 768 / 512 - 1.0, 8.0 / 6.0);
  const std::vector<double> frequencies = RopeInverseFrequencies(rope, 8, 768);
  for (int j = 0; j < 4; ++j) {
    EXPECT_NEAR(frequencies[j], std::pow(base, -j / 4.0), 1e-12) << "pair " << j;
  }
}

// transformers' attention of these families rotates whole heads, whatever the key says.
TEST(Rope, ShareIsIgnoredWhereHeadsAreWhole) {
  for (const char* family : {"llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2"}) {
    for (const char* changes :
         {R"({"partial_rotary_factor": 0.5})",
          R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})"}) {
      EXPECT_EQ(Parse(family, changes).rope.rotary_share, 1.0) << family << changes;
    }
  }
}

TEST(Rope, RefusesByName) {
  const std::vector<std::pair<const char*, const char*>> unsupported = {
      {R"({"rope_scaling": {"type": "su", "factor": 2.0}})", "got \"su\""},
      {R"({"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}})", "got \"mrope\""},
      {R"({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}})", "full_attention"},
      {R"({"partial_rotary_factor": 0.5, "rope_scaling": {"type": "linear", "factor": 2.0}})",
       "llama rotates whole heads"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 2.0, "partial_rotary_factor": 0.5}})",
       "partial_rotary_factor"},
  };
  for (const auto& [changes, text] : unsupported) {
    EXPECT_KVC_ERROR((void)Parse("llama", changes), kUnsupported, text);
  }
  const std::vector<std::pair<const char*, const char*>> bad = {
      {R"({"rope_scaling": {"type": "linear"}})", "factor"},
      {R"({"rope_scaling": {"type": "yarn"}})", "factor"},
      {R"({"rope_scaling": {"type": "dynamic"}})", "factor"},
      {R"({"rope_scaling": {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}})",
       "high_freq_factor"},
      {R"({"rope_scaling": {"type": "longrope", "long_factor": [1, 1, 1, 1]}})", "short_factor"},
      {R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1],
           "long_factor": [1, 1, 1, 1]}})",
       "each of 4 pairs of a head, got 3"},
      {R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 0, 1],
           "long_factor": [1, 1, 1, 1]}})",
       "expected positive numbers, got 0"},
      {R"({"rope_theta": 0})", "rope_theta"},
  };
  for (const auto& [changes, text] : bad) {
    EXPECT_KVC_ERROR((void)Parse("llama", changes), kBadInput, text);
  }
  EXPECT_KVC_ERROR((void)Parse("stablelm", R"({"partial_rotary_factor": 0.4})"), kBadShape,
                   "even number of rotated dimensions, got 3");
}

TEST(Rope, LayersWithoutRotation) {
  const auto rotated = [](const char* changes) {
    std::vector<bool> layers;
    const ModelConfig config = Parse("smollm3", changes);
    for (int64_t l = 0; l < config.num_layers; ++l) layers.push_back(config.rotated(l));
    return layers;
  };
  using Layers = std::vector<bool>;
  EXPECT_EQ(rotated(R"({"num_hidden_layers": 8})"), (Layers{1, 1, 1, 0, 1, 1, 1, 0}));
  EXPECT_EQ(rotated(R"({"num_hidden_layers": 8, "no_rope_layer_interval": 3})"),
            (Layers{1, 1, 0, 1, 1, 0, 1, 1}));
  EXPECT_EQ(rotated(R"({"no_rope_layers": [0, 1, 1], "no_rope_layer_interval": 1})"),
            (Layers{0, 1}));
  EXPECT_KVC_ERROR((void)Parse("smollm3", R"({"no_rope_layers": [1]})"), kBadInput,
                   "each of 2 layers, got 1");
  EXPECT_KVC_ERROR((void)Parse("smollm3", R"({"no_rope_layers": [1, 2]})"), kBadInput, "got 2");
  // No other family heeds the key.
  EXPECT_TRUE(Parse("llama", R"({"no_rope_layers": [1, 0]})").rotated(1));
}

TEST(Rope, LayoutsWithEachRotation) {
  const std::string longrope = R"({"rope_scaling": {"type": "longrope",
      "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1]}})";
  EXPECT_EQ(PossibleLayouts(Parse("llama", longrope)), "post-rope, rope-pairs");
  EXPECT_EQ(PossibleLayouts(Parse("stablelm", "{}")), "latent:N, latent:heads, post-rope");
  EXPECT_EQ(PossibleLayouts(Parse("olmo2", "{}")), "post-rope");
  EXPECT_EQ(PossibleLayouts(Parse("smollm3", "{}")),
            "latent:N, latent:heads, post-rope, rope-pairs");
}

}  // namespace
}  // namespace kvc
