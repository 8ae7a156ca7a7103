#include "model/compare.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/rank_bytes.h"
#include "model/embedding_rows.h"
#include "model/ordered_work.h"
#include "model/reference_run.h"
#include "model/streamed.h"
#include "model/threads.h"

namespace kvc::model {
namespace {

using torch::Tensor;

// Tokens whose logits are in memory at once, for each thread: 64 x 49,152 floats are 13 MB.
constexpr int64_t kRowBlock = 64;
constexpr int kMaxBlocks = 8;  // in work at once

struct Sums {
  double kl = 0.0;             // KL(reference || model)
  double model_nll = 0.0;      // -log p(next token)
  double reference_nll = 0.0;  // likewise
  int64_t tokens = 0;
};

// Collective: adds the windows of all ranks in their order.
Sums AddWindows(Ranks& ranks, const std::vector<Sums>& own) {
  std::vector<std::vector<Sums>> by_rank;
  for (const std::string& bytes : ranks.AllGather(ToBytes(own))) {
    by_rank.push_back(FromBytes<Sums>(bytes));
  }
  Sums total;
  for (size_t i = 0; i < by_rank[0].size(); ++i) {
    for (const std::vector<Sums>& theirs : by_rank) {
      if (i >= theirs.size()) break;
      total.kl += theirs[i].kl;
      total.model_nll += theirs[i].model_nll;
      total.reference_nll += theirs[i].reference_nll;
      total.tokens += theirs[i].tokens;
    }
  }
  return total;
}

// log softmax of the logits of rows first .. first + rows - 1: [rows, V].
Tensor LogProbabilities(const ModelConfig& config,
                        const OuterWeights& outer,
                        const Tensor& hidden,
                        int64_t first,
                        int64_t rows) {
  return torch::log_softmax(
      Logits(config, outer, hidden.narrow(0, first, rows).unsqueeze(0)).squeeze(0), -1);
}

double Total(const Tensor& rows) { return rows.to(torch::kFloat64).sum().item<double>(); }

// Compares one window: hidden states [T, E] of both, all tokens but the last.
Sums CompareWindow(const ReferenceRun& reference,
                   const ModelConfig& config,
                   const OuterWeights& outer,
                   const Tensor& hidden,
                   int64_t window) {
  const torch::NoGradGuard no_grad;
  const std::vector<int32_t>& ids = reference.windows[window];
  const Tensor next =
      torch::tensor(std::vector<int64_t>(ids.begin() + 1, ids.end())).unsqueeze(1);  // [T - 1, 1]
  Sums sums;
  sums.tokens = next.size(0);
  for (int64_t first = 0; first < next.size(0); first += kRowBlock) {
    const int64_t rows = std::min(kRowBlock, next.size(0) - first);
    const Tensor log_p = LogProbabilities(reference.config, reference.outer,
                                          reference.hidden[window], first, rows);  // [rows, V]
    const Tensor log_q = LogProbabilities(config, outer, hidden, first, rows);     // [rows, V]
    const Tensor target = next.narrow(0, first, rows);                             // [rows, 1]
    sums.reference_nll -= Total(log_p.gather(1, target));
    sums.model_nll -= Total(log_q.gather(1, target));
    sums.kl += Total((log_p - log_q).mul_(log_p.exp()).sum(-1));
  }
  return sums;
}

void CheckComparable(const ReferenceRun& reference, const ModelConfig& config, size_t num_hidden) {
  KVC_CHECK(config.vocab_size == reference.config.vocab_size, kBadShape,
            "vocabulary: expected the reference's {}, got {}", reference.config.vocab_size,
            config.vocab_size);
  const bool some = num_hidden > 0 || !reference.ranks->is_only();
  KVC_CHECK(num_hidden == reference.hidden.size() && some, kBadShape,
            "windows: expected the reference's {} and at least one, got {}",
            reference.hidden.size(), num_hidden);
  for (const std::vector<int32_t>& ids : reference.windows) {
    KVC_CHECK(
        ids.size() >= 2, kBadInput,
        "window: expected at least 2 tokens, got {}; a single token has no successor to predict",
        ids.size());
  }
}

}  // namespace

ReferenceRun RunReference(const Checkpoint& reference,
                          const std::vector<std::vector<int32_t>>& windows,
                          Progress& progress) {
  ReferenceRun run;
  run.config = reference.config();
  run.outer = LoadHead(reference);
  run.windows = windows;
  run.hidden = StreamWindows(reference, windows, {}, nullptr, progress, "reference");
  return run;
}

ModelDistance CompareHidden(const ReferenceRun& reference,
                            const ModelConfig& config,
                            const OuterWeights& outer,
                            const std::vector<Tensor>& hidden,
                            Progress& progress) {
  CheckComparable(reference, config, hidden.size());
  const auto count = static_cast<int64_t>(hidden.size());
  const SingleThreadedOperations single;
  const int workers =
      static_cast<int>(std::min<int64_t>({single.outer_threads(), kMaxBlocks, count}));
  std::vector<Sums> windows(hidden.size());
  RunOrdered(
      count, workers,
      [&](int64_t i) { windows[i] = CompareWindow(reference, config, outer, hidden[i], i); },
      [&](int64_t i) { progress.Report("compare", i + 1, count); });
  const Sums sums = AddWindows(*reference.ranks, windows);
  KVC_CHECK(std::isfinite(sums.kl) && std::isfinite(sums.model_nll), kNumeric,
            "logits: expected finite numbers, got NaN or an infinity");
  const auto tokens = static_cast<double>(sums.tokens);
  ModelDistance distance;
  distance.tokens = sums.tokens;
  distance.kld = sums.kl / tokens;
  distance.perplexity = std::exp(sums.model_nll / tokens);
  distance.reference_perplexity = std::exp(sums.reference_nll / tokens);
  return distance;
}

ModelDistance CompareWith(const ReferenceRun& reference,
                          const Checkpoint& model,
                          Progress& progress) {
  const std::vector<Tensor> hidden =
      StreamWindows(model, reference.windows, {}, nullptr, progress, "model");
  return CompareHidden(reference, model.config(), LoadHead(model), hidden, progress);
}

ModelDistance CompareModels(const Checkpoint& reference,
                            const Checkpoint& model,
                            const std::vector<std::vector<int32_t>>& windows,
                            Progress& progress) {
  return CompareWith(RunReference(reference, windows, progress), model, progress);
}

}  // namespace kvc::model
