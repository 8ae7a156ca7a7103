#include "factorize/global_training.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/base/ordered_sum.h"
#include "core/base/rng.h"
#include "core/io/json.h"
#include "factorize/gradient_noise.h"
#include "factorize/output_loss.h"
#include "factorize/rank_tensors.h"
#include "factorize/tune_global.h"
#include "factorize/window_share.h"
#include "model/adamw.h"
#include "model/embedding_rows.h"
#include "model/ordered_work.h"
#include "model/placement.h"
#include "model/streamed.h"
#include "model/training_state.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

constexpr uint64_t kPassStream = 0x9e3779b97f4a7c15ULL;  // passes get unrelated seeds
constexpr double kRunaway = 1.1;                         // times the best loss: the rate was wrong
constexpr double kBackoff = 1.0 / 3.0;                   // of the rate after that
constexpr int64_t kDeviceTokens = 8192;                  // that fill a device

double Square(double x) { return x * x; }

using Batch = std::vector<TrainedWindow>;

// One run of the training: the schedule, the optimizer's state, and the best weights so far.
class GlobalTraining {
 public:
  GlobalTraining(TrainedModel& model,
                 const TrainingText& text,
                 const GlobalTuneOptions& options,
                 std::filesystem::path path,
                 std::string stage,
                 int workers,
                 Progress& progress,
                 Ranks& ranks)
      : model_(model),
        text_(text),
        options_(options),
        path_(std::move(path)),
        stage_(std::move(stage)),
        workers_(workers),
        progress_(progress),
        ranks_(ranks),
        split_(SplitWindows(std::ssize(text.windows))) {
    const auto count = static_cast<int64_t>(split_.training.size());
    const auto length = static_cast<int64_t>(text.windows[0].size());
    step_windows_ = std::clamp<int64_t>(options.step_tokens / length, 1, count);
    pass_steps_ = (count + step_windows_ - 1) / step_windows_;
    check_every_ = std::max<int64_t>(1, pass_steps_ / options.pass_checks);
    adamw_.steps = pass_steps_ * options.passes;
    if (options.compute.cuda) {
      // At least two batches per step are needed to measure the noise of the gradient.
      const int64_t fitting = std::max<int64_t>(1, kDeviceTokens / length);
      batch_windows_ = std::clamp<int64_t>(step_windows_ / 2, 1, fitting);
      workers_ = 1;
    }
  }

  // Leaves the best weights in the model.
  GlobalTuning Run() {
    const bool found = ranks_.is_first() && std::filesystem::exists(path_);
    if (!ranks_.Broadcast(found ? "found" : "").empty()) {
      Resume();
      ranks_.Barrier();  // before rank 0 writes the next state
    } else {
      state_.values = model_.Scaled();
      state_.first_moment = torch::zeros_like(state_.values);
      state_.second_moment = torch::zeros_like(state_.values);
      state_.best = state_.values.clone();
      Check();
    }
    const double loss_before = curve_[0].check_loss;
    const double rate =
        options_.learning_rate * GlobalRateShare(options_.loss, loss_before, model_.config());
    while (step_ < adamw_.steps && !Stopped()) {
      ReportOrSave();
      adamw_.learning_rate = rate * backoff_;
      Step();
      ++step_;
      if (step_ % check_every_ == 0 || step_ == adamw_.steps) Check();
    }
    model_.SetScaled(state_.best);
    return Report();
  }

 private:
  [[nodiscard]] bool Stopped() const {
    const auto checks = static_cast<int64_t>(curve_.size());
    return checks - 1 - kept_row_ >= kPatience;
  }

  // An interruption is noticed between steps, when the state is whole, and by all ranks at the
  // same.
  void ReportOrSave() {
    std::exception_ptr interruption;
    try {
      progress_.Report(stage_, step_, adamw_.steps);
    } catch (const Error&) {
      interruption = std::current_exception();
    }
    if (ranks_.Total(interruption ? 1 : 0) == 0) return;
    Save();
    if (interruption) std::rethrow_exception(interruption);
    KVC_THROW(kInterrupted, "{}: interrupted on another rank", stage_);
  }

  // Returns the windows of the step. Every pass has its own order, which depends on the seed alone.
  [[nodiscard]] std::vector<int64_t> WindowsOf(int64_t step) const {
    const int64_t pass = step / pass_steps_;
    std::vector<int64_t> order = split_.training;
    Rng rng(options_.seed + static_cast<uint64_t>(pass) * kPassStream);
    Shuffle(rng, order);
    const int64_t first = step % pass_steps_ * step_windows_;
    const auto count = std::min<int64_t>(step_windows_, std::ssize(order) - first);
    return {order.begin() + first, order.begin() + first + count};
  }

  void Step() {
    const std::vector<int64_t> windows = WindowsOf(step_);
    const std::vector<Batch> batches = BatchesOf(windows);
    double loss = 0.0, squares = 0.0;
    Tensor sum = AddGradients(batches, loss, squares);
    const auto share = 1.0 / static_cast<double>(windows.size());
    sum.mul_(share);
    const double norm = sum.norm().item<double>();
    CheckFinite(loss, "loss");
    CheckFinite(norm, "gradient");
    if (std::ssize(windows) % batch_windows_ == 0) {
      noise_.Add(std::ssize(batches), squares, Square(norm / share));
    }
    model::AdamWStep(adamw_, step_, norm, model_.count(), sum, state_);
    model_.SetScaled(state_.values);
    loss_sum_ += loss * share;
    ++loss_steps_;
  }

  // Collective: returns the sum of the batches' gradients [count], in their order, and adds their
  // losses, and the squares of their norms, to `loss` and `squares`.
  Tensor AddGradients(const std::vector<Batch>& batches, double& loss, double& squares) {
    const auto count = std::ssize(batches);
    const std::vector<int64_t> mine = ranks_.PartsOf(count);
    std::vector<Tensor> gradients(mine.size());  // [count] each, while they are needed
    std::vector<double> losses(mine.size());
    std::vector<double> norms(mine.size());
    Tensor sum;
    std::optional<OrderedSum<float>> of_ranks;
    if (!ranks_.is_only()) of_ranks.emplace(ranks_, count, state_.values.numel());
    model::RunOrdered(
        std::ssize(mine), workers_,
        [&](int64_t i) {
          gradients[i] = torch::empty_like(state_.values);
          losses[i] = model_.Loss(batches[mine[i]], options_.loss, &gradients[i]);
        },
        [&](int64_t i) {
          norms[i] = Square(gradients[i].norm().item<double>());
          if (of_ranks) {
            of_ranks->Add(Floats(gradients[i].cpu()));
          } else {
            sum = i == 0 ? gradients[i] : sum.add_(gradients[i]);
          }
          gradients[i] = Tensor();
        });
    for (const double one : ShareNumbers(ranks_, losses, count)) loss += one;
    for (const double one : ShareNumbers(ranks_, norms, count)) squares += one;
    if (!of_ranks) return sum;
    std::vector<float> all = of_ranks->Finish();
    return torch::from_blob(all.data(), {std::ssize(all)}, torch::kFloat32)
        .clone()
        .to(state_.values.device());
  }

  // Returns `windows` in batches that go through the model together.
  [[nodiscard]] std::vector<Batch> BatchesOf(const std::vector<int64_t>& windows) const {
    std::vector<Batch> batches;
    for (size_t i = 0; i < windows.size(); ++i) {
      if (i % static_cast<size_t>(batch_windows_) == 0) batches.emplace_back();
      batches.back().push_back(text_.Window(windows[i]));
    }
    return batches;
  }

  void CheckFinite(double value, const char* what) const {
    KVC_CHECK(std::isfinite(value), kNumeric,
              "{}, step {}: expected a finite {}, got {}; the state of the last check is kept, run "
              "again with a lower --lr",
              stage_, step_ + 1, what, value);
  }

  // Measures the windows that are not trained on, keeps what is better, and writes the state.
  void Check() {
    const std::vector<Batch> batches = BatchesOf(split_.checked);
    const std::vector<int64_t> mine = ranks_.PartsOf(std::ssize(batches));
    std::vector<double> losses(mine.size());
    model::RunOrdered(
        std::ssize(mine), workers_,
        [&](int64_t i) { losses[i] = model_.Loss(batches[mine[i]], options_.loss, nullptr); },
        [](int64_t) {});
    double sum = 0.0;
    for (const double loss : ShareNumbers(ranks_, losses, std::ssize(batches))) sum += loss;
    CheckFinite(sum, "loss");
    const double loss = sum / static_cast<double>(split_.checked.size());
    const bool better = curve_.empty() || loss < BestLoss();
    AddRow(loss);
    if (better) {
      kept_row_ = std::ssize(curve_) - 1;
      state_.best.copy_(state_.values);
    } else if (loss > kRunaway * BestLoss()) {
      BackOff();
    }
    Save();
  }

  // Returns to the best weights and continues more slowly from there.
  void BackOff() {
    state_.values.copy_(state_.best);
    state_.first_moment.zero_();
    state_.second_moment.zero_();
    model_.SetScaled(state_.values);
    backoff_ *= kBackoff;
  }

  void AddRow(double check_loss) {
    const double train_loss =
        loss_steps_ == 0 ? check_loss : loss_sum_ / static_cast<double>(loss_steps_);
    const double rate = step_ == 0 ? 0.0 : model::LearningRate(adamw_, step_ - 1);
    curve_.push_back({step_, rate, train_loss, check_loss});
    progress_.Log(stage_ + ": step " + std::to_string(step_) + " of " +
                  std::to_string(adamw_.steps) + ": loss " + std::to_string(train_loss) +
                  ", on windows not trained on " + std::to_string(check_loss));
    loss_sum_ = 0.0;
    loss_steps_ = 0;
  }

  [[nodiscard]] double BestLoss() const { return curve_[kept_row_].check_loss; }

  [[nodiscard]] std::optional<int64_t> NoiseTokens() const {
    const std::optional<double> windows = noise_.Windows();
    if (!windows) return std::nullopt;
    const auto unit =
        static_cast<double>(batch_windows_) * static_cast<double>(text_.windows[0].size());
    return std::llround(*windows * unit);
  }

  [[nodiscard]] GlobalTuning Report() const {
    const auto length = static_cast<int64_t>(text_.windows[0].size());
    GlobalTuning tuning;
    tuning.loss = options_.loss;
    tuning.learning_rate = options_.learning_rate;
    tuning.steps = step_;
    tuning.kept_step = curve_[kept_row_].step;
    tuning.tokens = std::ssize(split_.training) * length;
    tuning.loss_before = curve_[0].check_loss;
    tuning.loss_after = BestLoss();
    tuning.backoff = backoff_;
    tuning.noise_tokens = NoiseTokens();
    tuning.curve = curve_;
    return tuning;
  }

  void Save() {
    if (!ranks_.is_first()) return;
    Json curve = Json::array();
    for (const TuningCheck& check : curve_) curve.push_back(ToJson(check));
    state_.progress = {
        {"step", step_},           {"kept_row", kept_row_},     {"curve", curve},
        {"loss_sum", loss_sum_},   {"loss_steps", loss_steps_}, {"backoff", backoff_},
        {"noise", noise_.ToJson()}};
    model::SaveTrainingState(state_, path_);
  }

  void Resume() {
    state_ = model::LoadTrainingState(path_, model_.count());
    const torch::Device device = model::DeviceOf(options_.compute);
    for (Tensor* part :
         {&state_.values, &state_.first_moment, &state_.second_moment, &state_.best}) {
      if (part->defined()) *part = part->to(device);
    }
    const std::string origin = path_.filename().string();
    KVC_CHECK(state_.best.defined(), kBadInput, "{}: expected the best weights, got none", origin);
    step_ = GetInt(state_.progress, "step", origin);
    kept_row_ = GetInt(state_.progress, "kept_row", origin);
    for (const Json& check : GetArray(state_.progress, "curve", origin)) {
      curve_.push_back(TuningCheckFromJson(check, origin));
    }
    loss_sum_ = GetDouble(state_.progress, "loss_sum", origin);
    loss_steps_ = GetInt(state_.progress, "loss_steps", origin);
    backoff_ = GetDouble(state_.progress, "backoff", origin);
    noise_ = GradientNoise::FromJson(GetObject(state_.progress, "noise", origin), origin);
    KVC_CHECK(kept_row_ >= 0 && kept_row_ < std::ssize(curve_), kBadInput,
              "{}: kept_row: expected a row of the curve, got {}", origin, kept_row_);
    model_.SetScaled(state_.values);
  }

  TrainedModel& model_;
  const TrainingText& text_;
  const GlobalTuneOptions& options_;
  const std::filesystem::path path_;
  const std::string stage_;  // of progress, and in messages
  int workers_;
  Progress& progress_;
  Ranks& ranks_;
  const TuneSplit split_;
  int64_t step_windows_ = 1;
  int64_t batch_windows_ = 1;  // that go through the model together
  int64_t pass_steps_ = 1;
  int64_t check_every_ = 1;
  model::AdamWOptions adamw_;
  model::TrainingState state_;  // of the scaled matrices
  int64_t step_ = 0;            // steps done
  std::vector<TuningCheck> curve_;
  int64_t kept_row_ = 0;   // of the curve: the best check
  double loss_sum_ = 0.0;  // of the steps since the last check
  int64_t loss_steps_ = 0;
  double backoff_ = 1.0;  // of the rate
  GradientNoise noise_;
};

}  // namespace

TrainingText ReadTrainingText(const Checkpoint& source,
                              const Windows& windows,
                              const GlobalTuneOptions& options,
                              Progress& progress,
                              Ranks& ranks) {
  TrainingText text{windows, model::EmbedWindows(source, windows), {}};
  if (options.loss == OutputLoss::kKl) {
    model::StreamOptions stream;
    stream.device = model::DeviceOf(options.compute);
    stream.one_of_many = !ranks.is_only() && windows.size() > 1;
    const std::vector<Tensor> own = model::StreamWindows(source, OwnWindows(windows, ranks), stream,
                                                         nullptr, progress, "teacher");
    text.hidden = ShareWindows(ranks, own, std::ssize(windows), text.embedded[0]);
  } else {
    text.hidden.resize(windows.size());
  }
  return text;
}

GlobalTuning TrainGlobally(TrainedModel& model,
                           const TrainingText& text,
                           const GlobalTuneOptions& options,
                           const std::filesystem::path& state,
                           const std::string& stage,
                           int workers,
                           Progress& progress,
                           Ranks& ranks) {
  return GlobalTraining(model, text, options, state, stage, workers, progress, ranks).Run();
}

}  // namespace kvc::factorize
