#include "profile/needle_importance.h"

#include <algorithm>

#include <torch/types.h>

#include "core/base/error.h"
#include "core/base/rank_bytes.h"
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
                              Progress& progress,
                              Ranks& ranks) {
  const torch::NoGradGuard no_grad;
  const ModelConfig& config = checkpoint.config();
  for (const NeedlePrompt& prompt : prompts) CheckPrompt(prompt);
  const std::vector<int64_t> mine = ranks.PartsOf(std::ssize(prompts));
  std::vector<std::vector<int32_t>> windows;
  for (const int64_t i : mine) windows.push_back(FedTokens(prompts[i]));
  // Of a prompt: 1 where it is passed, and the scores [L * G].
  const int64_t heads = config.num_layers * config.num_kv_heads;
  const Tensor scores = torch::zeros({std::ssize(mine), 1 + heads}, torch::kFloat64);
  model::StreamOptions stream;
  stream.taps.projections = true;
  const auto visit = [&](int64_t layer, int64_t window, const model::LayerTaps& taps,
                         const model::LayerWeights&) {
    const torch::NoGradGuard inner;
    scores[window].narrow(0, 1 + layer * config.num_kv_heads, config.num_kv_heads) =
        PromptScores(prompts[mine[window]], taps, config.num_kv_heads, config.logit_scale());
  };
  const std::vector<Tensor> hidden =
      model::StreamWindows(checkpoint, windows, stream, visit, progress, "needles");
  const model::OuterWeights outer = model::LoadOuter(checkpoint);
  std::vector<std::string> parts;
  for (size_t i = 0; i < mine.size(); ++i) {
    const bool passed = Passed(config, outer, hidden[i], prompts[mine[i]].answer);
    scores[static_cast<int64_t>(i)][0] = passed ? 1.0 : 0.0;
    const double* row = scores[static_cast<int64_t>(i)].data_ptr<double>();
    parts.push_back(ToBytes(std::vector<double>(row, row + 1 + heads)));
  }

  NeedleImportance importance;
  importance.tests = std::ssize(prompts);
  importance.scores.assign(heads, 0.0);
  for (const std::string& bytes : ranks.AllGatherParts(parts, importance.tests)) {
    const auto of_prompt = FromBytes<double>(bytes);
    if (of_prompt[0] == 0.0) continue;
    ++importance.passed;
    for (int64_t h = 0; h < heads; ++h) importance.scores[h] += of_prompt[1 + h];
  }
  for (double& score : importance.scores) {
    score /= static_cast<double>(std::max<int64_t>(importance.passed, 1));
  }
  return importance;
}

bool EnoughPassed(const NeedleImportance& importance) {
  return importance.passed > 0 && 4 * importance.passed >= importance.tests &&
         std::ranges::any_of(importance.scores, [](double score) { return score > 0.0; });
}

}  // namespace kvc::profile
