#include "model/trainer.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <utility>

#include <torch/types.h>

#include "core/base/error.h"
#include "core/base/ordered_sum.h"
#include "core/base/rank_bytes.h"
#include "core/base/thread_pool.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "model/parameters.h"
#include "model/replica.h"
#include "model/threads.h"
#include "model/training_state.h"

namespace kvc::model {
namespace {

using torch::Tensor;

constexpr uint64_t kBatchStream = 0x6b76632d62617463;  // keeps batches apart from initial weights

// Contribution of a shard of a batch to a step, as sums over tokens.
struct ShardResult {
  double loss = 0;    // of the predicted tokens that can be learned
  int64_t right = 0;  // answers
};

// Returns [n*(T-1)]: 1 if the role of a predicted token of sequences [first, last) fulfils
// `wanted`.
template <class Wanted>
Tensor RoleMask(const TrainBatch& batch, int64_t first, int64_t last, const Wanted& wanted) {
  Tensor mask = torch::empty({(last - first) * (batch.length - 1)}, torch::kFloat32);
  float* out = mask.data_ptr<float>();
  for (int64_t i = first * batch.length; i < last * batch.length; ++i) {
    if (i % batch.length != 0) {
      *out++ = wanted(batch.roles[static_cast<size_t>(i)]) ? 1.0F : 0.0F;
    }
  }
  return mask;
}

// Computes loss and gradients of sequences [first, last) of a batch; weights are those of the whole
// batch.
ShardResult RunShard(const TrainBatch& batch,
                     const RoleCounts& counts,
                     int64_t first,
                     int64_t last,
                     double answer_weight,
                     Replica& replica) {
  replica.gradients().zero_();
  if (first == last) {
    return {};
  }
  const auto begin = first * batch.length;
  const auto shape = std::vector<int64_t>{last - first, batch.length};
  const Tensor ids =
      torch::tensor(at::ArrayRef<int64_t>(batch.ids.data() + begin,
                                          static_cast<size_t>((last - first) * batch.length)),
                    torch::kInt64)
          .view(shape);                                                       // [n, T]
  const Tensor logits = replica.Forward(ids).narrow(1, 0, batch.length - 1);  // [n, T-1, V]
  const Tensor rows = logits.reshape({-1, logits.size(-1)});                  // [n*(T-1), V]
  const Tensor targets = ids.narrow(1, 1, batch.length - 1).reshape({-1});    // [n*(T-1)]
  const Tensor losses =
      torch::cross_entropy_loss(rows, targets, {}, at::Reduction::None);  // [n*(T-1)]
  const double learned_share = 1.0 / static_cast<double>(std::max<int64_t>(1, counts.learned));
  const double answer_share =
      answer_weight / static_cast<double>(std::max<int64_t>(1, counts.answers));
  const Tensor learned = RoleMask(
      batch, first, last, [](TokenRole role) { return role != TokenRole::kRandom; });  // [n*(T-1)]
  const Tensor answers = RoleMask(
      batch, first, last, [](TokenRole role) { return role == TokenRole::kAnswer; });  // [n*(T-1)]
  (losses * (learned * learned_share + answers * answer_share)).sum().backward();

  torch::NoGradGuard no_grad;
  ShardResult result;
  result.loss = (losses * learned).sum(torch::kFloat64).item<double>();
  result.right = ((rows.argmax(-1) == targets).to(torch::kFloat32) * answers).sum().item<int64_t>();
  return result;
}

// The optimizer and the step: everything between a batch and new weights.
class Stepper {
 public:
  Stepper(const ModelConfig& config, const ParameterList& list, TrainingState& state, Ranks& ranks)
      : state_(state), matrix_count_(list.matrix_count()), ranks_(ranks) {
    for (size_t i = 0; i < shards_.size(); ++i) {
      replicas_.push_back(std::make_unique<Replica>(config, list, state.values));
    }
  }

  // Returns the sum of the shards, and sets the whole gradient.
  ShardResult Backward(const TrainBatch& batch,
                       const RoleCounts& counts,
                       double answer_weight,
                       ThreadPool& pool) {
    std::vector<ShardResult> results(shards_.size());
    pool.ParallelFor(std::ssize(shards_), 1, [&](int64_t i, int64_t) {
      const int64_t shard = shards_[i];
      results[i] =
          RunShard(batch, counts, shard * batch.sequences / kTrainShards,
                   (shard + 1) * batch.sequences / kTrainShards, answer_weight, *replicas_[i]);
    });
    OrderedSum<float> sum(ranks_, kTrainShards, state_.values.numel());
    std::vector<std::string> mine;
    for (size_t i = 0; i < shards_.size(); ++i) {
      const Tensor& gradients = replicas_[i]->gradients();
      sum.Add({gradients.data_ptr<float>(), static_cast<size_t>(gradients.numel())});
      mine.push_back(ToBytes(std::vector<ShardResult>{results[i]}));
    }
    gradient_ = sum.Finish();
    ShardResult total;
    for (const std::string& bytes : ranks_.AllGatherParts(mine, kTrainShards)) {
      const ShardResult shard = FromBytes<ShardResult>(bytes).front();
      total.loss += shard.loss;
      total.right += shard.right;
    }
    return total;
  }

  [[nodiscard]] double GradientNorm() { return Gradient().norm().item<double>(); }

  void Apply(const TrainOptions& options, int64_t step, double norm) {
    Tensor gradient = Gradient();
    AdamWStep(options, step, norm, matrix_count_, gradient, state_);
  }

 private:
  // The sum, [count].
  Tensor Gradient() { return torch::from_blob(gradient_.data(), {std::ssize(gradient_)}); }

  TrainingState& state_;
  int64_t matrix_count_;
  Ranks& ranks_;
  std::vector<int64_t> shards_ = ranks_.PartsOf(kTrainShards);  // this rank's
  std::vector<std::unique_ptr<Replica>> replicas_;              // for each of them
  std::vector<float> gradient_;
};

Json OptionsJson(const TrainOptions& o) {
  return {{"steps", o.steps},
          {"learning_rate", o.learning_rate},
          {"last_rate_share", o.last_rate_share},
          {"warmup", o.warmup},
          {"weight_decay", o.weight_decay},
          {"beta1", o.beta1},
          {"beta2", o.beta2},
          {"epsilon", o.epsilon},
          {"clip", o.clip},
          {"answer_weight", o.answer_weight},
          {"previous_token_head", o.previous_token_head},
          {"seed", o.seed},
          {"log_every", o.log_every},
          {"checkpoint_every", o.checkpoint_every},
          {"dtype", std::string(ShortName(o.dtype))}};
}

Json ToJson(const TrainLogRow& row) {
  return {{"step", row.step},
          {"loss", row.loss},
          {"answer_accuracy", row.answer_accuracy},
          {"learning_rate", row.learning_rate},
          {"source", row.source}};
}

TrainLogRow RowFromJson(const Json& json) {
  const std::string origin = "training_state.safetensors: log";
  return {GetInt(json, "step", origin), GetDouble(json, "loss", origin),
          GetDouble(json, "answer_accuracy", origin), GetDouble(json, "learning_rate", origin),
          GetString(json, "source", origin)};
}

// Throws for a checkpoint of another run, naming the first differing field.
void CheckSame(const Json& expected, const Json& actual, const std::string& what) {
  for (const auto& [key, value] : expected.items()) {
    KVC_CHECK(actual.contains(key) && actual[key] == value, kUsage,
              "unfinished training: {}: {}: expected {}, got {}; use the same options, another "
              "output, or remove the unfinished directory",
              what, key, actual.contains(key) ? actual[key].dump() : "none", value.dump());
  }
}

// One run: the state, and what has been summed since the last line of the log.
class Run {
 public:
  Run(const ModelConfig& config,
      BatchSource& source,
      const TrainOptions& options,
      const Json& settings,
      std::filesystem::path directory,
      Ranks& ranks)
      : config_(config),
        source_(source),
        options_(options),
        settings_(settings),
        directory_(std::move(directory)),
        ranks_(ranks),
        list_(config) {
    const std::filesystem::path path = TrainingStatePath(directory_);
    if (std::filesystem::exists(path)) {
      Resume(path);
    } else {
      Rng rng(options.seed);
      state_.values = options.initial.empty() ? list_.Initialize(rng) : list_.Read(options.initial);
      if (options.initial.empty() && options.previous_token_head) {
        list_.StartPreviousTokenHead(config, state_.values);
      }
      state_.first_moment = torch::zeros_like(state_.values);
      state_.second_moment = torch::zeros_like(state_.values);
    }
    stepper_ = std::make_unique<Stepper>(config, list_, state_, ranks);
  }

  TrainReport Go(Progress& progress) {
    const SingleThreadedOperations single;
    ThreadPool pool(single.outer_threads());
    for (; step_ < options_.steps; ++step_) {
      ReportOrSave(progress);
      Step(pool, progress);
      if ((step_ + 1) % options_.checkpoint_every == 0 && step_ + 1 < options_.steps) {
        Save(step_ + 1);
      }
    }
    WriteModel();
    if (ranks_.is_first()) std::filesystem::remove(TrainingStatePath(directory_));
    report_.parameters = list_.count();
    report_.steps = step_;
    return report_;
  }

 private:
  // An interruption is noticed between steps, when the state is whole, and by all ranks at the
  // same.
  void ReportOrSave(Progress& progress) {
    std::exception_ptr interruption;
    try {
      progress.Report("train", step_, options_.steps);
    } catch (const Error&) {
      interruption = std::current_exception();
    }
    if (ranks_.Total(interruption ? 1 : 0) == 0) return;
    Save(step_);
    if (interruption) std::rethrow_exception(interruption);
    KVC_THROW(kInterrupted, "train: interrupted on another rank");
  }

  void Step(ThreadPool& pool, Progress& progress) {
    // the golden ratio's multiples: steps get unrelated seeds
    Rng rng((options_.seed ^ kBatchStream) + static_cast<uint64_t>(step_) * 0x9e3779b97f4a7c15ULL);
    const TrainBatch batch = source_.Next(rng);
    CheckIds(batch);
    const RoleCounts counts = CountRoles(batch);
    const ShardResult result = stepper_->Backward(batch, counts, options_.answer_weight, pool);
    const double loss = result.loss / static_cast<double>(std::max<int64_t>(1, counts.learned));
    const double norm = stepper_->GradientNorm();
    KVC_CHECK(std::isfinite(loss) && std::isfinite(norm), kNumeric,
              "training step {}: expected a finite loss and gradient, got {} and {}; the last "
              "checkpoint is kept, lower --lr",
              step_ + 1, loss, norm);
    stepper_->Apply(options_, step_, norm);
    source_.Observe(result.right, counts.answers);

    loss_sum_ += loss;
    right_sum_ += result.right;
    answer_sum_ += counts.answers;
    report_.tokens += batch.sequences * (batch.length - 1);
    if ((step_ + 1) % options_.log_every == 0 || step_ + 1 == options_.steps) {
      LogRow(LearningRate(options_, step_), progress);
    }
  }

  void LogRow(double rate, Progress& progress) {
    const int64_t since = report_.log.empty() ? 0 : report_.log.back().step;
    TrainLogRow row;
    row.step = step_ + 1;
    row.loss = loss_sum_ / static_cast<double>(row.step - since);
    row.answer_accuracy =
        answer_sum_ > 0 ? static_cast<double>(right_sum_) / static_cast<double>(answer_sum_) : 0;
    row.learning_rate = rate;
    row.source = source_.Describe();
    report_.log.push_back(row);
    loss_sum_ = 0;
    right_sum_ = 0;
    answer_sum_ = 0;
    progress.Log("step " + std::to_string(row.step) + ": loss " + std::to_string(row.loss) +
                 ", answers " + std::to_string(row.answer_accuracy) + ", rate " +
                 std::to_string(rate) + ", " + row.source);
  }

  void CheckIds(const TrainBatch& batch) const {
    for (const int64_t id : batch.ids) {
      KVC_CHECK(id >= 0 && id < config_.vocab_size, kBadInput,
                "training token: expected an id below the model's vocabulary of {}, got {}; the "
                "tokenizer does not belong to this config.json",
                config_.vocab_size, id);
    }
  }

  [[nodiscard]] Json LogJson() const {
    Json rows = Json::array();
    for (const TrainLogRow& row : report_.log) {
      rows.push_back(ToJson(row));
    }
    return rows;
  }

  void WriteModel() const {
    if (!ranks_.is_first()) return;
    list_.Write(state_.values, options_.dtype, directory_ / "model.safetensors");
    WriteJsonFile(directory_ / "training.json", {{"parameters", list_.count()},
                                                 {"options", OptionsJson(options_)},
                                                 {"settings", settings_},
                                                 {"tokens", report_.tokens},
                                                 {"log", LogJson()}});
  }

  void Save(int64_t steps_done) {
    state_.progress = {
        {"step", steps_done},        {"options", OptionsJson(options_)}, {"settings", settings_},
        {"source", source_.State()}, {"tokens", report_.tokens},         {"loss_sum", loss_sum_},
        {"right_sum", right_sum_},   {"answer_sum", answer_sum_},        {"log", LogJson()}};
    WriteModel();
    if (ranks_.is_first()) SaveTrainingState(state_, TrainingStatePath(directory_));
  }

  void Resume(const std::filesystem::path& path) {
    state_ = LoadTrainingState(path, list_.count());
    const std::string origin = path.filename().string();
    CheckSame(OptionsJson(options_), GetObject(state_.progress, "options", origin), "options");
    CheckSame(settings_, GetObject(state_.progress, "settings", origin), "settings");
    step_ = GetInt(state_.progress, "step", origin);
    loss_sum_ = GetDouble(state_.progress, "loss_sum", origin);
    right_sum_ = GetInt(state_.progress, "right_sum", origin);
    answer_sum_ = GetInt(state_.progress, "answer_sum", origin);
    report_.tokens = GetInt(state_.progress, "tokens", origin);
    report_.resumed_at = step_;
    for (const Json& row : GetArray(state_.progress, "log", origin)) {
      report_.log.push_back(RowFromJson(row));
    }
    source_.Restore(GetObject(state_.progress, "source", origin));
  }

  const ModelConfig& config_;
  BatchSource& source_;
  const TrainOptions& options_;
  const Json& settings_;
  std::filesystem::path directory_;
  Ranks& ranks_;
  ParameterList list_;
  TrainingState state_;
  std::unique_ptr<Stepper> stepper_;
  TrainReport report_;
  int64_t step_ = 0;
  double loss_sum_ = 0;  // since the last line of the log
  int64_t right_sum_ = 0;
  int64_t answer_sum_ = 0;
};

}  // namespace

TrainReport Train(const ModelConfig& config,
                  BatchSource& source,
                  const TrainOptions& options,
                  const Json& settings,
                  const std::filesystem::path& directory,
                  Progress& progress,
                  Ranks& ranks) {
  return Run(config, source, options, settings, directory, ranks).Go(progress);
}

}  // namespace kvc::model
