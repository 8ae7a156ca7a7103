#include "profile/needle_importance.h"

#include <algorithm>

#include <torch/types.h>

#include "core/base/error.h"
#include "model/projections.h"
#include "model/streamed.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

void CheckPrompt(const NeedlePrompt& prompt) {
  KVC_CHECK(
      !prompt.question.empty() && !prompt.answer.empty() && prompt.needle_begin >= 0 &&
          prompt.needle_begin < prompt.needle_end &&
          prompt.needle_end <= std::ssize(prompt.context),
      kBadShape,
      "needle prompt: expected a needle inside the context, a question and an answer, got none");
}

// Returns all tokens to feed so that every step of the answer is predicted: the last token predicts
// its last.
std::vector<int32_t> FedTokens(const NeedlePrompt& prompt) {
  std::vector<int32_t> ids = prompt.context;
  ids.insert(ids.end(), prompt.question.begin(), prompt.question.end());
  ids.insert(ids.end(), prompt.answer.begin(), prompt.answer.end() - 1);
  return ids;
}

// Attention of the last `steps` queries: [H, steps, T].
Tensor LastAttention(const model::LayerTaps& taps, int64_t steps, double scale) {
  const int64_t tokens = taps.k.size(2);
  const int64_t share = taps.q.size(1) / taps.k.size(1);
  const Tensor queries = taps.q[0].narrow(1, tokens - steps, steps);  // [H, steps, D_k]
  const Tensor keys = taps.k[0].repeat_interleave(share, 0);          // [H, T, D_k]
  Tensor logits = torch::bmm(queries * scale, keys.transpose(1, 2));
  model::HideUnseenKeys(logits, taps.window);
  return torch::softmax(logits, -1);
}

// S of each kv head for one prompt: [G], double.
Tensor PromptScores(const NeedlePrompt& prompt,
                    const model::LayerTaps& taps,
                    int64_t num_kv_heads,
                    double scale) {
  const Tensor attention = LastAttention(taps, std::ssize(prompt.answer), scale);
  KVC_CHECK(torch::isfinite(attention).all().item<bool>(), kNumeric,
            "needle importance: expected finite attention, got NaN or infinity; check the weights");
  const int64_t length = prompt.needle_end - prompt.needle_begin;
  const auto [top, index] = attention.topk(std::min(length, attention.size(2)), -1);
  const Tensor inside = torch::logical_and(index >= prompt.needle_begin, index < prompt.needle_end);
  const Tensor found = (top.to(torch::kFloat64) * inside).sum(-1) / length;  // [H, steps]
  return found.mean(-1).view({num_kv_heads, -1}).amax(-1);
}

// Returns true if greedy decoding gives the answer: hidden [T, E] are the last layer's states of
// the fed tokens. As long as every step so far is right, the fed tokens are those that it would
// have decoded.
bool Passed(const ModelConfig& config,
            const model::OuterWeights& outer,
            const Tensor& hidden,
            const std::vector<int32_t>& answer) {
  const int64_t steps = std::ssize(answer);
  const Tensor rows = hidden.narrow(0, hidden.size(0) - steps, steps).unsqueeze(0);
  const Tensor best = model::Logits(config, outer, rows)[0].argmax(-1);  // [steps]
  for (int64_t i = 0; i < steps; ++i) {
    if (best[i].item<int64_t>() != answer[i]) return false;
  }
  return true;
}

}  // namespace

NeedleImportance ScoreNeedles(const Checkpoint& checkpoint,
                              const std::vector<NeedlePrompt>& prompts,
                              Progress& progress) {
  const torch::NoGradGuard no_grad;
  const ModelConfig& config = checkpoint.config();
  std::vector<std::vector<int32_t>> windows;
  for (const NeedlePrompt& prompt : prompts) {
    CheckPrompt(prompt);
    windows.push_back(FedTokens(prompt));
  }
  const Tensor scores =
      torch::zeros({std::ssize(prompts), config.num_layers, config.num_kv_heads}, torch::kFloat64);
  model::StreamOptions stream;
  stream.taps.projections = true;
  const auto visit = [&](int64_t layer, int64_t window, const model::LayerTaps& taps,
                         const model::LayerWeights&) {
    const torch::NoGradGuard inner;
    scores[window][layer] =
        PromptScores(prompts[window], taps, config.num_kv_heads, config.logit_scale());
  };
  const std::vector<Tensor> hidden =
      model::StreamWindows(checkpoint, windows, stream, visit, progress, "needles");

  NeedleImportance importance;
  importance.tests = std::ssize(prompts);
  Tensor sum = torch::zeros({config.num_layers, config.num_kv_heads}, torch::kFloat64);
  const model::OuterWeights outer = model::LoadOuter(checkpoint);
  for (int64_t i = 0; i < importance.tests; ++i) {
    if (!Passed(config, outer, hidden[i], prompts[i].answer)) continue;
    ++importance.passed;
    sum += scores[i];
  }
  if (importance.passed > 0) sum /= importance.passed;
  importance.scores.assign(sum.data_ptr<double>(), sum.data_ptr<double>() + sum.numel());
  return importance;
}

bool EnoughPassed(const NeedleImportance& importance) {
  return importance.passed > 0 && 4 * importance.passed >= importance.tests &&
         std::ranges::any_of(importance.scores, [](double score) { return score > 0.0; });
}

}  // namespace kvc::profile
