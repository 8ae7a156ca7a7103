#include "core/checkpoint/model_config.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

Json Llama() {
  return ParseJson(R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
      "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
      "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "hidden_act": "silu",
      "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2})",
                   "config.json");
}

Json Gpt2() {
  return ParseJson(R"({"model_type": "gpt2", "n_embd": 48, "n_head": 4, "n_layer": 3,
      "n_positions": 64, "n_inner": null, "vocab_size": 97, "activation_function": "gelu_new",
      "layer_norm_epsilon": 1e-05})",
                   "config.json");
}

Json With(Json config, const std::string& changes) {
  config.update(ParseJson(changes, "test"));
  return config;
}

Json Mistral(const std::string& changes) {
  return With(With(Llama(), R"({"model_type": "mistral"})"), changes);
}

ModelConfig Parse(const Json& config) { return ParseModelConfig(config, "config.json"); }

TEST(ModelConfig, Llama) {
  const ModelConfig model = Parse(Llama());
  EXPECT_EQ(model.family, Family::kLlama);
  EXPECT_EQ(model.num_layers, 2);
  EXPECT_EQ(model.group_size(), 2);
  EXPECT_EQ(model.head_width, 8);
  EXPECT_EQ(model.dtype, DType::kBF16);
  EXPECT_TRUE(model.has_rope);
  EXPECT_EQ(model.rope.theta, 10000.0);
  EXPECT_FALSE(model.tied_embeddings);  // transformers' default of the family
  EXPECT_FALSE(model.qkv_bias || model.out_bias || model.mlp_bias || model.thin());
  EXPECT_EQ(model.qk_norm, QkNorm::kNone);
  EXPECT_EQ(model.eos_ids, std::vector<int32_t>{2});
  EXPECT_EQ(model.num_key_groups(), 4);
  EXPECT_EQ(model.key_width(1, 3), 8);
  EXPECT_DOUBLE_EQ(model.logit_scale(), 1.0 / std::sqrt(8.0));
}

TEST(ModelConfig, Defaults) {
  Json config = Llama();
  config.erase("num_key_value_heads");
  config.erase("rms_norm_eps");
  config.erase("torch_dtype");
  const ModelConfig model = Parse(With(config, R"({"head_dim": null, "eos_token_id": [2, 5]})"));
  EXPECT_EQ(model.num_kv_heads, 8);
  EXPECT_EQ(model.norm_epsilon, 1e-6);
  EXPECT_FALSE(model.dtype.has_value());
  EXPECT_EQ(model.eos_ids, (std::vector<int32_t>{2, 5}));
  EXPECT_EQ(Parse(With(Llama(), R"({"head_dim": 24})")).head_width, 24);
  config = Mistral(R"({"sliding_window": null})");
  config.erase("num_key_value_heads");  // MistralConfig's own default is 8, whatever the heads
  EXPECT_EQ(Parse(With(config, R"({"num_attention_heads": 16})")).num_kv_heads, 8);
  EXPECT_EQ(Parse(With(config, R"({"num_attention_heads": 16, "num_key_value_heads": null})"))
                .num_kv_heads,
            16);
  EXPECT_KVC_ERROR((void)Parse(With(config, R"({"num_attention_heads": 4})")), kBadInput,
                   "got 4 and 8, the default");
  EXPECT_EQ(Parse(With(Llama(), R"({"model_type": "qwen3"})")).head_width, 128);
}

TEST(ModelConfig, Gpt2) {
  const ModelConfig model = Parse(Gpt2());
  EXPECT_EQ(model.family, Family::kGpt2);
  EXPECT_EQ(model.num_kv_heads, 4);
  EXPECT_EQ(model.head_width, 12);
  EXPECT_EQ(model.mlp_width, 192);
  EXPECT_EQ(model.context_length, 64);
  EXPECT_EQ(model.activation, Activation::kGeluTanh);
  EXPECT_FALSE(model.has_rope);
  EXPECT_TRUE(model.tied_embeddings && model.qkv_bias && model.out_bias && model.mlp_bias);
  EXPECT_EQ(Parse(With(Gpt2(), R"({"n_inner": 50})")).mlp_width, 50);
  EXPECT_KVC_ERROR((void)Parse(With(Gpt2(), R"({"scale_attn_weights": false})")), kUnsupported,
                   "scale_attn_weights");
  EXPECT_KVC_ERROR((void)Parse(With(Gpt2(), R"({"scale_attn_by_inverse_layer_idx": true})")),
                   kUnsupported, "scale_attn_by_inverse_layer_idx");
  EXPECT_KVC_ERROR((void)Parse(With(Gpt2(), R"({"n_head": 5})")), kBadInput, "multiple of n_head");
}

TEST(ModelConfig, BiasesAndNormsOfTheFamilies) {
  const ModelConfig llama = Parse(With(Llama(), R"({"attention_bias": true, "mlp_bias": true})"));
  EXPECT_TRUE(llama.qkv_bias && llama.out_bias && llama.mlp_bias);
  const ModelConfig mistral = Parse(Mistral(R"({"sliding_window": null, "attention_bias": true})"));
  EXPECT_FALSE(mistral.qkv_bias || mistral.out_bias);  // Mistral has no such option
  const ModelConfig qwen2 = Parse(With(Llama(), R"({"model_type": "qwen2"})"));
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.out_bias && qwen2.qk_norm == QkNorm::kNone);
  const ModelConfig qwen3 = Parse(With(Llama(), R"({"model_type": "qwen3", "head_dim": 8})"));
  EXPECT_TRUE(qwen3.qk_norm == QkNorm::kHead && !qwen3.qkv_bias);
}

TEST(ModelConfig, RopeOfBothVersions) {
  const ModelConfig old = Parse(With(Llama(), R"({"rope_theta": 5e5, "rope_scaling": {"rope_type":
      "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192}})"));
  const ModelConfig current = Parse(With(Llama(), R"({"rope_parameters": {"rope_theta": 5e5,
      "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192}, "dtype": "float16"})"));
  for (const ModelConfig& model : {old, current}) {
    EXPECT_EQ(model.rope.theta, 5e5);
    EXPECT_EQ(model.rope.scaling, RopeScaling::kLlama3);
    EXPECT_EQ(model.rope.factor, 8.0);
    EXPECT_EQ(model.rope.original_context, 8192);
  }
  EXPECT_EQ(current.dtype, DType::kF16);  // "dtype" wins over the older key
  const ModelConfig linear =
      Parse(With(Llama(), R"({"rope_scaling": {"type": "linear", "factor": 4}})"));
  EXPECT_EQ(linear.rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.rope.factor, 4.0);
  const ModelConfig none = Parse(With(Llama(), R"({"rope_scaling": {"rope_type": "default"}})"));
  EXPECT_EQ(none.rope.scaling, RopeScaling::kNone);
  EXPECT_EQ(Parse(With(Llama(), R"({"rope_scaling": null})")).rope.scaling, RopeScaling::kNone);
}

TEST(ModelConfig, AbsentContextIsTheFamilysDefault) {
  for (const auto& [type, context] :
       {std::pair{"llama", 2048}, std::pair{"qwen2", 32768}, std::pair{"qwen3", 32768},
        std::pair{"smollm3", 32768}, std::pair{"stablelm", 4096}, std::pair{"olmo2", 2048}}) {
    Json config = Llama();
    config.erase("max_position_embeddings");
    config["model_type"] = type;
    EXPECT_EQ(Parse(config).context_length, context) << type;
  }
  Json config = Gpt2();
  config.erase("n_positions");
  EXPECT_EQ(Parse(config).context_length, 1024);
}

TEST(ModelConfig, ValuesThatStandForNone) {
  const ModelConfig model = Parse(
      With(Llama(), R"({"torch_dtype": "auto", "eos_token_id": -1, "bos_token_id": [-1, 3]})"));
  EXPECT_FALSE(model.dtype.has_value());
  EXPECT_TRUE(model.eos_ids.empty());
  EXPECT_EQ(model.bos_ids, std::vector<int32_t>{3});
}

TEST(ModelConfig, Gpt2HasTwoNamesForItsSizes) {
  const char* general = R"({"hidden_size": 64, "num_attention_heads": 8, "num_hidden_layers": 2,
      "max_position_embeddings": 128})";
  Json alone = With(Gpt2(), general);
  for (const char* own : {"n_embd", "n_head", "n_layer", "n_positions"}) alone.erase(own);
  for (const Json& config : {alone, With(Gpt2(), general)}) {  // as in transformers, they win
    const ModelConfig model = Parse(config);
    EXPECT_EQ(model.model_width, 64);
    EXPECT_EQ(model.num_heads, 8);
    EXPECT_EQ(model.num_layers, 2);
    EXPECT_EQ(model.context_length, 128);
  }
}

TEST(ModelConfig, StableLmVariantsAreRefused) {
  for (const char* key : {"use_parallel_residual", "qk_layernorm"}) {
    Json config = With(Llama(), R"({"model_type": "stablelm"})");
    EXPECT_EQ(Parse(config).norm, NormKind::kLayer);
    config[key] = true;
    EXPECT_KVC_ERROR((void)Parse(config), kUnsupported, key);
  }
}

// The windows of all layers; 0 for none.
std::vector<int64_t> Windows(const Json& config) {
  const ModelConfig model = Parse(config);
  std::vector<int64_t> windows;
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    windows.push_back(model.window(layer).value_or(0));
  }
  return windows;
}

TEST(ModelConfig, SlidingWindowsAsTransformersReadsThem) {
  using Widths = std::vector<int64_t>;
  EXPECT_EQ(Windows(Mistral(R"({"sliding_window": null})")), (Widths{0, 0}));
  EXPECT_EQ(Windows(Mistral(R"({"sliding_window": 16})")), (Widths{16, 16}));
  EXPECT_EQ(Windows(Mistral("{}")), (Widths{4096, 4096}));  // absent is not null
  // Mistral has no such option.
  EXPECT_EQ(Windows(Mistral(R"({"sliding_window": 16, "use_sliding_window": false})")),
            (Widths{16, 16}));
  EXPECT_EQ(Windows(Mistral(R"({"sliding_window": 16,
      "layer_types": ["full_attention", "sliding_attention"]})")),
            (Widths{0, 16}));
  for (const char* family : {"qwen2", "qwen3"}) {
    const auto qwen = [&](const char* changes) {
      Json config = With(Llama(), changes);
      config["model_type"] = family;
      return config;
    };
    EXPECT_EQ(Windows(qwen(R"({"sliding_window": 16, "max_window_layers": 0})")), (Widths{0, 0}));
    EXPECT_EQ(Windows(qwen(R"({"use_sliding_window": true, "sliding_window": 16})")),
              (Widths{0, 0}));  // max_window_layers is 28 unless the file says less
    EXPECT_EQ(Windows(qwen(R"({"use_sliding_window": true, "sliding_window": 16,
        "max_window_layers": 1})")),
              (Widths{0, 16}));
    EXPECT_EQ(Windows(qwen(R"({"use_sliding_window": true, "max_window_layers": 0})")),
              (Widths{4096, 4096}));
    EXPECT_EQ(Windows(qwen(R"({"use_sliding_window": true, "sliding_window": 8,
        "max_window_layers": 1, "layer_types": ["sliding_attention", "full_attention"]})")),
              (Widths{8, 0}));
  }
}

TEST(ModelConfig, SlidingWindowsThatContradictAreRefused) {
  EXPECT_KVC_ERROR((void)Parse(With(Llama(), R"({"model_type": "qwen3", "sliding_window": 16,
          "layer_types": ["full_attention", "sliding_attention"]})")),
                   kBadInput, "use_sliding_window");
  EXPECT_KVC_ERROR((void)Parse(Mistral(R"({"sliding_window": null,
          "layer_types": ["full_attention", "sliding_attention"]})")),
                   kBadInput, "expected sliding_window for the sliding layer 1");
  EXPECT_KVC_ERROR((void)Parse(Mistral(R"({"layer_types": ["sliding_attention"]})")), kBadInput,
                   "expected num_hidden_layers = 2 entries, got 1");
  EXPECT_KVC_ERROR((void)Parse(Mistral(R"({"layer_types": ["conv", "full_attention"]})")),
                   kUnsupported, "got conv");
  EXPECT_KVC_ERROR((void)Parse(With(Llama(), R"({"sliding_window": 16,
          "layer_types": ["sliding_attention", "full_attention"]})")),
                   kUnsupported, "model of type llama");
  EXPECT_KVC_ERROR((void)Parse(Mistral(R"({"sliding_window": 0})")), kBadInput, "sliding_window");
  EXPECT_KVC_ERROR((void)Parse(Mistral(R"({"sliding_window": "all"})")), kBadInput,
                   "sliding_window");
}

TEST(ModelConfig, RefusesByName) {
  const std::vector<std::pair<const char*, const char*>> unsupported = {
      {R"({"model_type": "mixtral"})", "mixtral"},
      {R"({"model_type": "gemma2"})", "gemma2"},
      {R"({"num_local_experts": 8})", "mixture of experts"},
      {R"({"hidden_act": "relu2"})", "relu2"},
      {R"({"quantization_config": {"bits": 4}})", "quantized"},
      {R"({"torch_dtype": "float8_e4m3fn"})", "float8_e4m3fn"},
  };
  for (const auto& [changes, text] : unsupported) {
    EXPECT_KVC_ERROR((void)Parse(With(Llama(), changes)), kUnsupported, text);
  }
  const std::vector<std::pair<const char*, const char*>> bad = {
      {R"({"hidden_size": 0})", "hidden_size"},
      {R"({"hidden_size": "64"})", "expected an integer"},
      {R"({"hidden_size": 4294967296})", "hidden_size"},
      {R"({"hidden_size": 63})", "multiple of num_attention_heads"},
      {R"({"num_key_value_heads": 3})", "multiple of num_key_value_heads"},
      {R"({"head_dim": 7})", "even"},
      {R"({"rms_norm_eps": -1})", "rms_norm_eps"},
      {R"({"eos_token_id": "x"})", "eos_token_id"},
      {R"({"eos_token_id": [2.5]})", "eos_token_id"},
  };
  for (const auto& [changes, text] : bad) {
    EXPECT_KVC_ERROR((void)Parse(With(Llama(), changes)), kBadInput, text);
  }
  Json config = Llama();
  config.erase("vocab_size");
  EXPECT_KVC_ERROR((void)Parse(config), kBadInput, "vocab_size");
  EXPECT_KVC_ERROR((void)Parse(Json::array()), kBadInput, "expected an object");
}

// Sizes that fit their type and no machine: refused before anything is held for each layer or head.
TEST(ModelConfig, SizesBeyondEveryModelAreRefused) {
  for (const char* changes :
       {R"({"num_hidden_layers": 2000000000})",
        R"({"num_hidden_layers": 16384, "num_attention_heads": 128, "hidden_size": 1024})",
        R"({"num_attention_heads": 1048576, "hidden_size": 8388608, "head_dim": 1024})",
        R"({"hidden_size": 1073741824, "vocab_size": 2147483647, "head_dim": 8})"}) {
    EXPECT_KVC_ERROR((void)Parse(With(Llama(), changes)), kBadInput, "layers");
    EXPECT_KVC_ERROR((void)Parse(Mistral(changes)), kBadInput, "layers");
  }
  EXPECT_KVC_ERROR((void)Parse(With(Gpt2(), R"({"n_layer": 2147483647})")), kBadInput, "layers");
  // The largest that is published, GPT-3's shape, is far below.
  EXPECT_EQ(Parse(With(Llama(), R"({"num_hidden_layers": 96, "num_attention_heads": 96,
      "num_key_value_heads": 96, "hidden_size": 12288, "intermediate_size": 49152,
      "vocab_size": 256000, "max_position_embeddings": 10000000})"))
                .head_width,
            128);
}

TEST(ModelConfig, ThinKeys) {
  const ModelConfig model = Parse(With(Llama(), R"({"kvc": {"format": 1, "layout": "latent",
      "groups": 2, "ranks": [[1, 16], [5, 6]], "objective": "input-query"}})"));
  EXPECT_TRUE(model.thin());
  EXPECT_EQ(model.num_key_groups(), 2);
  EXPECT_EQ(model.key_width(0, 1), 16);
  const ModelConfig again = Parse(ConfigWithKeys(model, model.keys));
  EXPECT_EQ(again.keys.layout, KeyLayout::kLatent);
  EXPECT_EQ(again.keys.ranks, model.keys.ranks);
  EXPECT_EQ(again.family, Family::kLlama);
  EXPECT_FALSE(Parse(ConfigWithKeys(model, {})).thin());
  const ModelConfig absorb = Parse(With(Gpt2(), R"({"kvc": {"format": 1, "layout": "absorb",
      "groups": 4, "ranks": [[1, 2, 3, 12], [4, 4, 4, 4], [1, 1, 1, 1]]}})"));
  EXPECT_EQ(absorb.key_width(0, 3), 12);
}

// What is thin has a name of its own for other tools; its family stands in the block.
TEST(ModelConfig, ThinModelType) {
  const ModelConfig model = Parse(With(Mistral(R"({"architectures": ["MistralForCausalLM"],
      "sliding_window": null})"),
                                       R"({"kvc": {"format": 1, "layout": "latent", "groups": 1,
      "ranks": [[4], [4]]}})"));
  const Json thin = ConfigWithKeys(model, model.keys);
  EXPECT_EQ(thin.at("model_type"), "kvc");
  EXPECT_EQ(thin.at("kvc").at("family"), "mistral");
  EXPECT_EQ(thin.at("architectures").dump(), R"(["KvcForCausalLM"])");
  EXPECT_EQ(thin.at("auto_map").at("AutoModelForCausalLM"), "modeling_kvc.KvcForCausalLM");
  const ModelConfig read = Parse(thin);
  EXPECT_EQ(read.family, Family::kMistral);
  EXPECT_EQ(ConfigWithKeys(read, read.keys), thin);
  const Json full = ConfigWithKeys(read, {});
  EXPECT_EQ(full.at("model_type"), "mistral");
  EXPECT_FALSE(full.contains("auto_map") || full.contains("kvc"));
  Json broken = thin;
  broken["kvc"]["family"] = "mixtral";
  EXPECT_KVC_ERROR((void)Parse(broken), kUnsupported, "mixtral");
  broken["kvc"].erase("family");
  EXPECT_KVC_ERROR((void)Parse(broken), kBadInput, "family");
  broken.erase("kvc");
  EXPECT_KVC_ERROR((void)Parse(broken), kBadInput, "kvc");
}

TEST(ModelConfig, RefusesBrokenThinKeys) {
  const std::vector<std::pair<const char*, const char*>> bad = {
      {R"({"format": 1, "layout": "latent", "groups": 3, "ranks": []})", "divisor"},
      {R"({"format": 1, "layout": "latent", "groups": 0, "ranks": []})", "divisor"},
      {R"({"format": 1, "layout": "latent", "groups": 1, "ranks": [[4]]})", "2 layers, got 1"},
      {R"({"format": 1, "layout": "latent", "groups": 1, "ranks": [[4], [4, 4]]})",
       "1 ranks in layer 1"},
      {R"({"format": 1, "layout": "latent", "groups": 1, "ranks": [[4], 4]})", "no list"},
      {R"({"format": 1, "layout": "latent", "groups": 1, "ranks": [[4], [0]]})", "1..32"},
      {R"({"format": 1, "layout": "latent", "groups": 1, "ranks": [[4], [33]]})", "got 33"},
      {R"({"format": 1, "layout": "latent", "groups": 1, "ranks": [[4], [4.0]]})", "got 4.0"},
      {R"({"format": 1, "layout": "absorb", "groups": 4, "ranks": []})",
       "expected one of latent:N, latent:heads, post-rope, rope-pairs for llama, got absorb"},
      {R"({"format": 1, "layout": "post-rope", "groups": 1, "ranks": []})", "number of kv heads"},
      {R"({"format": 1, "layout": "thin", "groups": 4, "ranks": []})", "thin"},
      {R"({"format": 1, "groups": 4, "ranks": []})", "layout"},
      {R"([])", "expected an object"},
  };
  for (const auto& [block, text] : bad) {
    Json config = Llama();
    config["kvc"] = ParseJson(block, "test");
    EXPECT_KVC_ERROR((void)Parse(config), kBadInput, text);
  }
  EXPECT_KVC_ERROR((void)Parse(With(Llama(), R"({"kvc": {"format": 2}})")), kUnsupported,
                   "format 1");
}

TEST(ModelConfig, RotationPairs) {
  const Json two_heads = With(Llama(), R"({"num_key_value_heads": 2})");
  const ModelConfig model = Parse(With(two_heads,
                                       R"({"kvc": {"format": 1, "layout": "rope-pairs",
      "groups": 2, "ranks": [[2, 8], [4, 2]], "pairs": [[[3], [1, 0, 2, 3]], [[0, 2], [1]]]}})"));
  EXPECT_EQ(model.keys.pairs[0][1], (std::vector<int64_t>{1, 0, 2, 3}));
  EXPECT_EQ(Parse(ConfigWithKeys(model, model.keys)).keys.pairs, model.keys.pairs);
  const std::vector<std::pair<const char*, const char*>> bad = {
      {R"("ranks": [[4, 3], [2, 2]])", "even"},
      {R"("ranks": [[2, 2], [2, 2]])", "pairs"},
      {R"("ranks": [[2, 2], [2, 2]], "pairs": [[[0], [1]]])", "2 layers, got 1"},
      {R"("ranks": [[2, 2], [2, 4]], "pairs": [[[0], [1]], [[0], [1]]])",
       "pairs of layer 1, head 1: expected 2"},
      {R"("ranks": [[2, 2], [2, 4]], "pairs": [[[0], [1]], [[0], [3, 3]]])",
       "different pairs in 0..3, got 3"},
      {R"("ranks": [[2, 2], [2, 2]], "pairs": [[[0], [1]], [[0], [4]]])", "got 4"},
      {R"("ranks": [[2, 2], [2, 2]], "pairs": [[[0], [1]], [[0]]])", "each of 2 kv heads, got 1"},
  };
  for (const auto& [fields, text] : bad) {
    const std::string block =
        std::string(R"({"kvc": {"format": 1, "layout": "rope-pairs", "groups": 2, )") + fields +
        "}}";
    EXPECT_KVC_ERROR((void)Parse(With(two_heads, block)), kBadInput, text);
  }
}

TEST(ModelConfig, LayoutsOfTheFamilies) {
  EXPECT_EQ(PossibleLayouts(Parse(Gpt2())), "absorb");
  EXPECT_EQ(PossibleLayouts(Parse(Llama())), "latent:N, latent:heads, post-rope, rope-pairs");
  const ModelConfig qwen3 = Parse(With(Llama(), R"({"model_type": "qwen3", "head_dim": 8})"));
  EXPECT_EQ(PossibleLayouts(qwen3), "latent:N, latent:heads, post-rope");
  EXPECT_NE(LayoutObstacle(qwen3, KeyLayout::kRopePairs), "");
}

TEST(ModelConfig, LayoutsBehindTheRotation) {
  for (const char* name : {"full", "absorb", "latent"}) {
    EXPECT_FALSE(KeysBehindRotation(KeyLayoutFromName(name))) << name;
  }
  EXPECT_TRUE(KeysBehindRotation(KeyLayout::kPostRope));
  EXPECT_TRUE(KeysBehindRotation(KeyLayout::kRopePairs));
}

TEST(ModelConfig, GenerationConfigNamesTheEnd) {
  const testing::TempDir dir;
  WriteJsonFile(dir / "config.json", Llama());
  EXPECT_EQ(ReadModelConfig(dir.path()).eos_ids, std::vector<int32_t>{2});
  WriteFile(dir / "generation_config.json", R"({"eos_token_id": [7, 9]})");
  EXPECT_EQ(ReadModelConfig(dir.path()).eos_ids, (std::vector<int32_t>{7, 9}));
  WriteFile(dir / "generation_config.json", "{}");
  EXPECT_EQ(ReadModelConfig(dir.path()).eos_ids, std::vector<int32_t>{2});
  WriteFile(dir / "generation_config.json", "[]");
  EXPECT_KVC_ERROR((void)ReadModelConfig(dir.path()), kBadInput, "generation_config.json");
}

}  // namespace
}  // namespace kvc
