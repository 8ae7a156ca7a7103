#include "model/streamed.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "model/embedding_rows.h"
#include "model/ordered_work.h"
#include "model/placement.h"
#include "model/threads.h"

namespace kvc::model {
namespace {

using torch::Tensor;

// More workers than this would hold too many activations at once.
constexpr int kMaxWorkers = 8;

void CheckIds(const ModelConfig& config, const std::vector<int32_t>& ids) {
  KVC_CHECK(!ids.empty(), kBadInput, "tokens: expected at least one, got none");
  for (const int32_t id : ids) {
    KVC_CHECK(id >= 0 && id < config.vocab_size, kBadInput,
              "token id: expected 0 to {}, got {}; does the tokenizer belong to the model?",
              config.vocab_size - 1, id);
  }
}

}  // namespace

std::vector<Tensor> EmbedWindows(const Checkpoint& checkpoint,
                                 const std::vector<std::vector<int32_t>>& windows) {
  const torch::NoGradGuard no_grad;
  OuterWeights rows;  // an embedding that holds token t's row as row t
  if (checkpoint.Has(Role::kPositionEmbedding)) {
    const std::vector<int64_t> shape = checkpoint.Shape(Role::kPositionEmbedding);
    rows.position_embedding = torch::tensor(checkpoint.Load(Role::kPositionEmbedding)).view(shape);
  }
  std::vector<Tensor> hidden;
  for (const std::vector<int32_t>& ids : windows) {
    CheckIds(checkpoint.config(), ids);
    rows.embedding = LoadEmbeddingRows(checkpoint, ids);                      // [T, E]
    const Tensor order = torch::arange(rows.embedding.size(0)).unsqueeze(0);  // [1, T]
    hidden.push_back(Embed(checkpoint.config(), rows, order).squeeze(0));
  }
  return hidden;
}

std::vector<Tensor> StreamWindows(const Checkpoint& checkpoint,
                                  const std::vector<std::vector<int32_t>>& windows,
                                  const StreamOptions& options,
                                  const LayerVisitor& visitor,
                                  Progress& progress,
                                  const std::string& stage) {
  const ModelConfig& config = checkpoint.config();
  const auto num_windows = static_cast<int64_t>(windows.size());
  std::vector<Tensor> hidden = options.initial_hidden.empty()
                                   ? EmbedWindows(checkpoint, windows)
                                   : options.initial_hidden;  // [T, E] each
  KVC_CHECK(hidden.size() == windows.size(), kInternal,
            "initial_hidden: expected one tensor for each of {} windows, got {}", windows.size(),
            hidden.size());
  const int64_t total = (config.num_layers - options.first_layer) * num_windows;
  const int workers = static_cast<int>(std::min<int64_t>({NumThreads(), kMaxWorkers, num_windows}));
  int64_t done = 0;
  for (int64_t layer = options.first_layer; layer < config.num_layers; ++layer) {
    const LayerWeights weights = PlaceOn(LoadLayer(checkpoint, layer), options.device);
    checkpoint.ReleaseLayer(layer);
    {
      std::optional<SingleThreadedOperations> single;
      if (workers > 1 || options.one_of_many) {
        single.emplace();
      }
      std::vector<LayerTaps> taps(windows.size());
      const auto forward = [&](int64_t window) {
        const torch::NoGradGuard no_grad;
        const Tensor x = hidden[window].to(options.device).unsqueeze(0);  // [1, T, E]
        hidden[window] =
            LayerForward(config, weights, layer, x, options.taps, &taps[window]).squeeze(0).cpu();
      };
      RunOrdered(num_windows, workers, forward, [&](int64_t window) {
        if (visitor) {
          visitor(layer, window, taps[window], weights);
        }
        taps[window] = {};
        progress.Report(stage, ++done, total);
      });
    }
    if (options.after_layer) {
      options.after_layer(layer, hidden);
    }
  }
  return hidden;
}

Tensor SequenceLogits(const Checkpoint& checkpoint, std::span<const int32_t> ids) {
  NoProgress silent;
  const std::vector<Tensor> hidden =
      StreamWindows(checkpoint, {{ids.begin(), ids.end()}}, {}, nullptr, silent, "logits");
  const torch::NoGradGuard no_grad;
  return Logits(checkpoint.config(), LoadOuter(checkpoint), hidden[0].unsqueeze(0)).squeeze(0);
}

}  // namespace kvc::model
