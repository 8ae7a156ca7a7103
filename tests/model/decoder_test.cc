// Properties of one layer: layouts that must agree, taps, causality, gradients.

#include "model/decoder.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/model/golden_models.h"

namespace kvc::model {
namespace {

using testing::OpenGolden;
using torch::Tensor;

Tensor RandomHidden(const ModelConfig& config, int64_t windows, int64_t tokens) {
  torch::manual_seed(20);
  return torch::randn({windows, tokens, config.model_width});
}

double MaxDifference(const Tensor& a, const Tensor& b) {
  return (a - b).abs().max().item<double>();  // NaN compares false below
}

// A random orthogonal matrix [n, n].
Tensor Orthogonal(int64_t n) { return std::get<0>(torch::linalg_qr(torch::randn({n, n}))); }

std::vector<Tensor*> Trainable(LayerWeights& w) {
  std::vector<Tensor*> tensors;
  for (Tensor* tensor : {&w.attn_norm,
                         &w.attn_norm_bias,
                         &w.q,
                         &w.q_bias,
                         &w.k,
                         &w.k_bias,
                         &w.v,
                         &w.v_bias,
                         &w.o,
                         &w.o_bias,
                         &w.q_norm,
                         &w.k_norm,
                         &w.k_rebuild,
                         &w.k_reduce,
                         &w.k_reduce_bias,
                         &w.q_reduce,
                         &w.mlp_norm,
                         &w.mlp_norm_bias,
                         &w.gate,
                         &w.gate_bias,
                         &w.up,
                         &w.up_bias,
                         &w.down,
                         &w.down_bias}) {
    if (tensor->defined()) {
      tensors.push_back(tensor);
    }
  }
  return tensors;
}

// c = x (M W_K)^T and B = M^T give the source's keys for every orthogonal M of a group.
TEST(DecoderTest, LatentAtFullRankEqualsSource) {
  const torch::NoGradGuard no_grad;
  for (const char* name : {"llama", "llama-bias", "qwen2", "qwen3"}) {
    const Checkpoint checkpoint = OpenGolden(name);
    const ModelConfig& config = checkpoint.config();
    const LayerWeights full = LoadLayer(checkpoint, 1);
    const Tensor hidden = RandomHidden(config, 2, 37);
    const Tensor expected = LayerForward(config, full, 1, hidden);
    for (int64_t groups = 1; groups <= config.num_kv_heads; ++groups) {
      if (config.num_kv_heads % groups != 0) {
        continue;
      }
      const int64_t rank = config.num_kv_heads / groups * config.head_width;
      ModelConfig thin = config;
      thin.keys = {KeyLayout::kLatent, groups, {{rank}, std::vector<int64_t>(groups, rank)}};
      LayerWeights weights = full;
      std::vector<Tensor> down;
      std::vector<Tensor> rebuild;
      for (int64_t n = 0; n < groups; ++n) {
        const Tensor m = Orthogonal(rank);
        down.push_back(m.matmul(full.k.narrow(0, n * rank, rank)));
        rebuild.push_back(m.t());
      }
      weights.k = torch::cat(down, 0);
      weights.k_rebuild = torch::cat(rebuild, 0);
      EXPECT_LE(MaxDifference(LayerForward(thin, weights, 1, hidden), expected), 5e-5)
          << name << " in " << groups << " groups";
    }
  }
}

// q' = q B and k' = k A with A B^T = I; the key bias cancels in the softmax.
TEST(DecoderTest, AbsorbAtFullRankEqualsSource) {
  const torch::NoGradGuard no_grad;
  const Checkpoint checkpoint = OpenGolden("gpt2");
  const ModelConfig& config = checkpoint.config();
  const LayerWeights full = LoadLayer(checkpoint, 0);
  const int64_t width = config.head_width;
  ModelConfig thin = config;
  const std::vector<int64_t> ranks(config.num_heads, width);
  thin.keys = {KeyLayout::kAbsorb, config.num_heads, {ranks, ranks}};
  LayerWeights weights = full;
  std::vector<Tensor> q;
  std::vector<Tensor> q_bias;
  std::vector<Tensor> k;
  for (int64_t h = 0; h < config.num_heads; ++h) {
    const Tensor m = Orthogonal(width);
    q.push_back(m.matmul(full.q.narrow(0, h * width, width)));
    q_bias.push_back(m.mv(full.q_bias.narrow(0, h * width, width)));
    k.push_back(m.matmul(full.k.narrow(0, h * width, width)));
  }
  weights.q = torch::cat(q);
  weights.q_bias = torch::cat(q_bias);
  weights.k = torch::cat(k);
  weights.k_bias = Tensor();
  const Tensor hidden = RandomHidden(config, 1, 41);
  EXPECT_LE(
      MaxDifference(LayerForward(thin, weights, 0, hidden), LayerForward(config, full, 0, hidden)),
      5e-5);
}

TEST(DecoderTest, LaterTokensDoNotChangeEarlierOnes) {
  const torch::NoGradGuard no_grad;
  for (const std::string& name : testing::GoldenNames()) {
    const Checkpoint checkpoint = OpenGolden(name);
    const LayerWeights weights = LoadLayer(checkpoint, 0);
    const Tensor hidden = RandomHidden(checkpoint.config(), 1, 30);
    Tensor changed = hidden.clone();
    changed.narrow(1, 20, 10) += 1.0;
    const Tensor before = LayerForward(checkpoint.config(), weights, 0, hidden);
    const Tensor after = LayerForward(checkpoint.config(), weights, 0, changed);
    EXPECT_TRUE(torch::equal(before.narrow(1, 0, 20), after.narrow(1, 0, 20))) << name;
    EXPECT_GT(MaxDifference(before.narrow(1, 20, 1), after.narrow(1, 20, 1)), 1e-2) << name;
  }
}

TEST(DecoderTest, TapsFitTogether) {
  const torch::NoGradGuard no_grad;
  for (const std::string& name : testing::GoldenNames()) {
    const Checkpoint checkpoint = OpenGolden(name);
    const ModelConfig& config = checkpoint.config();
    LayerTaps taps;
    const int64_t tokens = 23;
    (void)LayerForward(config, LoadLayer(checkpoint, 1), 1, RandomHidden(config, 2, tokens),
                       {.projections = true, .probabilities = true, .attention = true}, &taps);
    const Tensor k = taps.k.repeat_interleave(config.group_size(), 1).to(torch::kFloat64);
    const Tensor v = taps.v.repeat_interleave(config.group_size(), 1).to(torch::kFloat64);
    Tensor unseen = torch::ones({tokens, tokens}, torch::kBool).triu(1);
    if (taps.window) {
      unseen = unseen.logical_or(torch::ones({tokens, tokens}, torch::kBool).tril(-*taps.window));
    }
    const Tensor logits =
        taps.q.to(torch::kFloat64).matmul(k.transpose(2, 3)) / std::sqrt(config.head_width);
    const Tensor a = logits.masked_fill(unseen, -INFINITY).softmax(-1);  // [N, H, T, T]
    EXPECT_LE(MaxDifference(taps.probabilities, a), 1e-5) << name;
    const Tensor o = a.matmul(v).transpose(1, 2).reshape({2, tokens, -1});  // [N, T, H*D]
    EXPECT_LE(MaxDifference(taps.attention, o), 5e-5) << name;
    EXPECT_EQ(taps.input.sizes().vec(), (std::vector<int64_t>{2, tokens, config.model_width}));
    // Behind the rotation alone queries become thin.
    const int64_t width =
        config.keys.layout == KeyLayout::kPostRope ? config.head_width : taps.q.size(3);
    EXPECT_EQ(taps.q_pre_rope.sizes().vec(),
              (std::vector<int64_t>{2, config.num_heads, tokens, width}))
        << name;
  }
}

TEST(DecoderTest, TapsThatWereNotAskedForAreUndefined) {
  const torch::NoGradGuard no_grad;
  const Checkpoint checkpoint = OpenGolden("llama");
  LayerTaps taps;
  (void)LayerForward(checkpoint.config(), LoadLayer(checkpoint, 0), 0,
                     RandomHidden(checkpoint.config(), 1, 3), {.attention = true}, &taps);
  EXPECT_TRUE(taps.attention.defined());
  EXPECT_FALSE(taps.q.defined());
  EXPECT_FALSE(taps.probabilities.defined());
}

// Blocks of queries without gradients, all at once with them: lengths around the block's.
TEST(DecoderTest, BlockedAttentionEqualsWholeAttention) {
  const Checkpoint checkpoint = OpenGolden("qwen2");
  const LayerWeights weights = LoadLayer(checkpoint, 0);
  for (const int64_t tokens : {1, 127, 128, 129, 300}) {
    const Tensor hidden = RandomHidden(checkpoint.config(), 2, tokens);
    const Tensor whole = LayerForward(checkpoint.config(), weights, 0, hidden);
    const torch::NoGradGuard no_grad;
    const Tensor blocked = LayerForward(checkpoint.config(), weights, 0, hidden);
    EXPECT_LE(MaxDifference(whole, blocked), 2e-5) << tokens;
  }
}

// d loss / d weights along a random direction, against a central difference in double.
TEST(DecoderTest, GradientsEqualFiniteDifferences) {
  for (const std::string& name : testing::GoldenNames()) {
    const Checkpoint checkpoint = OpenGolden(name);
    const ModelConfig& config = checkpoint.config();
    const Tensor hidden = RandomHidden(config, 1, 9).to(torch::kFloat64);
    const Tensor direction = torch::randn_like(hidden);
    LayerWeights weights = LoadLayer(checkpoint, 1);
    for (Tensor* tensor : Trainable(weights)) {
      *tensor = tensor->to(torch::kFloat64).requires_grad_(true);
    }
    const auto loss = [&] { return (LayerForward(config, weights, 1, hidden) * direction).sum(); };
    loss().backward();
    for (Tensor* tensor : Trainable(weights)) {
      const Tensor step = torch::randn_like(*tensor);
      const double expected = (tensor->grad() * step).sum().item<double>();
      const torch::NoGradGuard no_grad;
      const double h = 1e-5;
      tensor->add_(step, h);
      const double above = loss().item<double>();
      tensor->sub_(step, 2 * h);
      const double below = loss().item<double>();
      tensor->add_(step, h);
      EXPECT_NEAR((above - below) / (2 * h), expected, 1e-5 * (1.0 + std::abs(expected)))
          << name << ", weight of shape " << tensor->sizes();
    }
  }
}

TEST(DecoderTest, RefusesWhatItDoesNotRun) {
  const Checkpoint gpt2 = OpenGolden("gpt2");
  const Tensor ids = torch::zeros({1, gpt2.config().context_length + 1}, torch::kInt64);
  EXPECT_THROW((void)Embed(gpt2.config(), LoadOuter(gpt2), ids), Error);

  const Checkpoint llama = OpenGolden("llama");
  ModelConfig config = llama.config();
  config.keys.layout = KeyLayout::kAbsorb;
  try {
    (void)LayerForward(config, LoadLayer(llama, 0), 0, RandomHidden(config, 1, 2));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
  }
}

TEST(DecoderTest, TiedHeadIsTheEmbedding) {
  const OuterWeights tied = LoadOuter(OpenGolden("llama"));
  EXPECT_EQ(tied.lm_head.data_ptr(), tied.embedding.data_ptr());
  const OuterWeights untied = LoadOuter(OpenGolden("mistral"));
  EXPECT_NE(untied.lm_head.data_ptr(), untied.embedding.data_ptr());
}

}  // namespace
}  // namespace kvc::model
