#include "factorize/rank_cost.h"

#include <algorithm>
#include <cmath>

#include "core/io/json.h"
#include "factorize/memory_table.h"
#include "factorize/window_share.h"

namespace kvc::factorize {
namespace {

constexpr int64_t kFloat = sizeof(float);
constexpr int64_t kDouble = sizeof(double);
constexpr int64_t kStoredBytes = 2;               // of a weight in the checkpoint
constexpr int64_t kSumBuffer = int64_t{8} << 20;  // of OrderedSum
constexpr int64_t kMostWorkers = 8;               // of StreamWindows
constexpr int64_t kStepBuffers = 6;               // weights, moments, steps, best, gradient sum
constexpr double kEigenFlops = 10.0;              // times m^3: eigenvectors of [m, m]
constexpr double kRefineFlops = 200.0;            // times m^3 and heads: RefineBasis
constexpr int64_t kVariantWindows = 3;            // of --spread
constexpr int64_t kVariantTokens = 256;

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

class Predictor {
 public:
  Predictor(const ModelConfig& config,
            const PlannedKeys& keys,
            const FactorizeOptions& options,
            int ranks,
            int threads)
      : config_(config), keys_(keys), options_(options), ranks_(ranks), threads_(threads) {
    layer_ = NumLayerParameters(config);
    width_ = GroupWidth(config, keys.layout.num_groups);
    const ErrorWeights weights = WeightsOf(keys.objective);
    weighted_ = weights != ErrorWeights::kNone;
    met_ = weights == ErrorWeights::kOutput && keys.layout.layout == KeyLayout::kLatent;
    sums_ = NumKeySums(config, keys.layout.num_groups, weights, met_);
    const int64_t E = config.model_width;
    const int64_t rows = keys.layout.num_groups * keys.group_rank;
    factors_ = rows * E + config.num_kv_heads * config.head_width * keys.group_rank;
    trained_ = factors_ + config.num_heads * config.head_width * E;
    if (keys.layout.layout == KeyLayout::kAbsorb || keys.layout.layout == KeyLayout::kRopePairs) {
      factors_ = rows * E * (1 + config.group_size());
      trained_ = factors_;
    }
  }

  RankCost All() {
    RankCost cost;
    cost.ranks = ranks_;
    cost.threads = threads_;
    const int64_t tokens = options_.calibration_tokens / options_.window * options_.window;
    const int64_t held = options_.held_back * options_.window;
    cost.stages.push_back(ClosedForms(tokens, held));
    if (options_.spread) cost.stages.push_back(Spread(tokens, held));
    if (options_.tune) cost.stages.push_back(Local(held));
    if (options_.tune_global) cost.stages.push_back(Global(held));
    cost.stages.push_back(HeldBack(held));
    return cost;
  }

 private:
  // Windows of the rank that has most of them, as tokens.
  [[nodiscard]] int64_t Own(int64_t tokens) const {
    return CeilDivide(tokens / options_.window, ranks_) * options_.window;
  }
  [[nodiscard]] int64_t Hidden(int64_t tokens) const {
    return tokens * config_.model_width * kFloat;
  }
  // Share of a message that leaves the rank when it is cut for all of them.
  [[nodiscard]] double Away() const { return (ranks_ - 1.0) / ranks_; }
  // What every rank holds from the closed forms on.
  [[nodiscard]] int64_t Factors() const { return config_.num_layers * factors_ * kFloat; }

  // Activations of one window of T tokens, with the attention as a whole.
  [[nodiscard]] int64_t Activations(bool tapped) const {
    const int64_t T = options_.window;
    const int64_t queries = config_.num_heads * config_.head_width;
    const int64_t keys = config_.num_kv_heads * config_.head_width;
    const int64_t rows = 4 * config_.model_width + 3 * queries + 2 * keys + 3 * config_.mlp_width;
    int64_t squares = 2 * config_.num_heads;
    if (tapped && weighted_) squares += config_.num_heads + 2 * config_.group_size();
    return (T * rows + T * T * squares) * kFloat;
  }
  [[nodiscard]] int64_t Workers(int64_t tokens) const {
    return std::clamp<int64_t>(tokens / options_.window, 1,
                               std::min<int64_t>(threads_, kMostWorkers));
  }
  // A streamed pass over `tokens` of this rank: a layer, hidden states, activations.
  [[nodiscard]] int64_t PassMemory(int64_t tokens, bool tapped) const {
    return layer_ * kFloat + Hidden(tokens) + (Workers(tokens) + 1) * Activations(tapped);
  }
  [[nodiscard]] double PassFlops(int64_t tokens) const {
    const double attention = 2.0 * static_cast<double>(options_.window) *
                             static_cast<double>(config_.num_heads * config_.head_width);
    return static_cast<double>(tokens) * static_cast<double>(config_.num_layers) *
           (2.0 * static_cast<double>(layer_) + 2.0 * attention);
  }
  [[nodiscard]] int64_t PassRead() const { return config_.num_layers * layer_ * kStoredBytes; }
  [[nodiscard]] int64_t Head() const { return config_.vocab_size * config_.model_width; }

  [[nodiscard]] StageCost ClosedForms(int64_t tokens, int64_t held) const {
    const int64_t own = Own(tokens);
    const int64_t parts = std::min(tokens / options_.window, kMostSumParts);
    const bool sends = ranks_ > 1;
    StageCost cost{"closed forms"};
    // The collector's sums, a part, their sum, and the statistics of a layer that waits its turn.
    cost.memory = PassMemory(own, true) + 4 * sums_ * kDouble + Factors() + Hidden(Own(held));
    if (sends) cost.memory += 2 * std::max(kSumBuffer, sums_ * kDouble);
    cost.read = PassRead();
    const double sums = static_cast<double>(sums_ * kDouble * config_.num_layers);
    const double parts_sent =
        static_cast<double>(CeilDivide(parts, ranks_)) + 1.0 / ranks_ * (ranks_ - 1);
    cost.sent = std::llround(sums * Away() * parts_sent + Away() * static_cast<double>(Factors()));
    const double m = static_cast<double>(width_);
    const double heads = met_ ? static_cast<double>(config_.num_kv_heads) : (weighted_ ? 1.0 : 0.0);
    const double grams = 2.0 * m * m * (static_cast<double>(keys_.layout.num_groups) + heads);
    const auto turns = static_cast<double>(CeilDivide(config_.num_layers, ranks_));
    cost.alone = turns * m * m * m * (met_ ? kEigenFlops + kRefineFlops : kEigenFlops) *
                 static_cast<double>(keys_.layout.num_groups);
    cost.flops =
        PassFlops(own) + static_cast<double>(own * config_.num_layers) * grams + cost.alone;
    return cost;
  }

  [[nodiscard]] StageCost Spread(int64_t tokens, int64_t held) const {
    StageCost cost = ClosedForms(tokens, held);  // once more, at other ranks
    cost.name = "spread";
    const int64_t variants = CeilDivide(config_.num_layers, ranks_);
    const int64_t variant = kVariantWindows * std::min(options_.window, kVariantTokens);
    const int64_t memory = PassMemory((variants + 1) * variant, false) + Factors() +
                           Hidden(Own(held)) + Head() * kFloat;
    cost.memory = std::max(cost.memory, memory);
    cost.read += PassRead();
    // Half of the layers for each variant, and the head once.
    cost.flops += PassFlops((variants / 2 + 1) * variant) +
                  2.0 * static_cast<double>((variants + 1) * variant) * static_cast<double>(Head());
    return cost;
  }

  [[nodiscard]] StageCost Local(int64_t held) const {
    const int64_t tokens = options_.tune_tokens / options_.window * options_.window;
    StageCost cost{"local tuning"};
    // Inputs and targets of all windows, the full model's states of this rank's, and a step.
    const int64_t step = std::max<int64_t>(options_.tuning.step_tokens / options_.window, 1);
    const int64_t at_once = std::min<int64_t>(CeilDivide(step, ranks_), threads_);
    cost.memory = 2 * layer_ * kFloat + 2 * Hidden(tokens) + 3 * Hidden(Own(tokens)) +
                  (kStepBuffers + 2 * at_once) * trained_ * kFloat +
                  2 * at_once * Activations(false) + Factors() + Hidden(Own(held));
    cost.read = PassRead();
    const double windows = static_cast<double>(tokens) / static_cast<double>(options_.window);
    const double steps =
        static_cast<double>(options_.tuning.passes) * windows / static_cast<double>(step);
    const double gradients = steps * (static_cast<double>(CeilDivide(step, ranks_)) + Away()) *
                             static_cast<double>(trained_ * kFloat);
    cost.sent = std::llround(static_cast<double>(config_.num_layers) * Away() *
                             (2.0 * static_cast<double>(Hidden(tokens)) + gradients));
    const double attention =
        2.0 * static_cast<double>(trained_) +
        4.0 * static_cast<double>(options_.window * config_.num_heads * config_.head_width);
    cost.flops =
        2.0 * PassFlops(Own(tokens)) +
        3.0 * static_cast<double>(options_.tuning.passes * Own(tokens) * config_.num_layers) *
            attention;
    return cost;
  }

  [[nodiscard]] StageCost Global(int64_t held) const {
    const int64_t tokens = options_.tune_tokens / options_.window * options_.window;
    StageCost cost{"global tuning"};
    const int64_t step = std::max<int64_t>(options_.global.step_tokens / options_.window, 1);
    const int64_t own = CeilDivide(step, ranks_);
    const int64_t at_once = std::min<int64_t>(own, threads_);
    const int64_t trained = config_.num_layers * trained_ * kFloat;
    const int64_t window = Hidden(options_.window);
    cost.memory =
        NumParameters(config_) * kFloat + (kStepBuffers + 1 + at_once) * trained +
        2 * Hidden(tokens) + at_once * (config_.num_layers + 1) * window +
        at_once * (2 * Activations(false) + 3 * options_.window * config_.vocab_size * kFloat) +
        Factors() + Hidden(Own(held));
    if (ranks_ > 1) cost.memory += 2 * trained;
    cost.read = 2 * PassRead();
    const double windows = static_cast<double>(tokens) / static_cast<double>(options_.window);
    const double steps =
        static_cast<double>(options_.global.passes) * windows / static_cast<double>(step);
    cost.sent = std::llround(
        Away() * (static_cast<double>(Hidden(tokens)) +
                  steps * (static_cast<double>(own) + Away()) * static_cast<double>(trained)));
    // Forward and backward, and forward again from each layer's input; the teacher.
    const double pass = PassFlops(Own(tokens)) +
                        2.0 * static_cast<double>(Own(tokens)) * static_cast<double>(Head());
    cost.flops = pass * (1.0 + 4.0 * static_cast<double>(options_.global.passes));
    return cost;
  }

  // The source, what was written and, when it was tuned, what it was before.
  [[nodiscard]] StageCost HeldBack(int64_t held) const {
    StageCost cost{"held back"};
    const int64_t own = Own(held);
    const int64_t passes = options_.held_back == 0 ? 0 : (options_.tunes() ? 3 : 2);
    // The reference's states, and the head beside the logits of 64 tokens of both.
    cost.memory = PassMemory(own, false) + Hidden(own) + Head() * kFloat + Factors();
    cost.read = passes * PassRead() + Head() * kStoredBytes;
    cost.flops = static_cast<double>(passes) * PassFlops(own) +
                 2.0 * static_cast<double>(passes * own) * static_cast<double>(Head());
    return cost;
  }

  const ModelConfig& config_;
  const PlannedKeys keys_;
  const FactorizeOptions& options_;
  const int ranks_;
  const int threads_;
  int64_t layer_ = 0;  // parameters
  int64_t width_ = 0;  // m of a group
  bool weighted_ = false;
  bool met_ = false;
  int64_t sums_ = 0;     // of a part
  int64_t factors_ = 0;  // numbers of a layer's factors
  int64_t trained_ = 0;  // numbers of a layer that tuning trains
};

}  // namespace

int64_t RankCost::memory() const {
  int64_t most = 0;
  for (const StageCost& stage : stages) most = std::max(most, stage.memory);
  return most;
}

Json ToJson(const RankCost& cost) {
  Json json = {{"ranks", cost.ranks},
               {"threads", cost.threads},
               {"memory_bytes", cost.memory()},
               {"stages", Json::array()}};
  for (const StageCost& stage : cost.stages) {
    json["stages"].push_back({{"stage", stage.name},
                              {"memory_bytes", stage.memory},
                              {"sent_bytes", stage.sent},
                              {"read_bytes", stage.read},
                              {"flops", stage.flops},
                              {"flops_alone", stage.alone}});
  }
  return json;
}

RankCost PredictRankCost(const ModelConfig& config,
                         const PlannedKeys& keys,
                         const FactorizeOptions& options,
                         int ranks,
                         int threads) {
  return Predictor(config, keys, options, ranks, threads).All();
}

int64_t NumKeySums(const ModelConfig& config, int64_t num_groups, ErrorWeights weights, bool met) {
  const int64_t G = config.num_kv_heads;
  const int64_t D = config.head_width;
  const int64_t m = GroupWidth(config, num_groups);
  const bool by_group = weights == ErrorWeights::kAttention;
  const int64_t weighted = met ? G : (by_group ? num_groups : 0);
  const int64_t of_heads = 5 * G * D * D + 2 * G * D + G;
  return 1 + (num_groups + weighted) * m * m + config.num_heads * D + of_heads;
}

}  // namespace kvc::factorize
