#include "factorize/tune_global.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/rng.h"
#include "factorize/gradient_noise.h"
#include "factorize/model_gradient.h"
#include "factorize/thin_layer.h"
#include "model/adamw.h"
#include "model/embedding_rows.h"
#include "model/ordered_work.h"
#include "model/threads.h"
#include "model/training_state.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

constexpr int64_t kSizeWindows = 4;                      // that the sizes of inputs are taken from
constexpr uint64_t kPassStream = 0x9e3779b97f4a7c15ULL;  // passes get unrelated seeds
constexpr double kCeRateShare = 0.2;                     // as from a divergence of 0.04
constexpr double kReferenceWidth = 128.0;                // at which --lr is the rate
constexpr double kReferenceLayers = 4.0;                 // the same
constexpr double kRunaway = 1.1;                         // times the best loss: the rate was wrong
constexpr double kBackoff = 1.0 / 3.0;                   // of the rate after that

double Square(double x) { return x * x; }

// What is trained on: windows, what the first layer gets of them, and what the full model makes of
// them.
struct TrainingText {
  const Windows& windows;
  std::vector<Tensor> embedded;  // [T, E] each
  std::vector<Tensor> hidden;    // [T, E] each, the full model's last; undefined with kCe

  [[nodiscard]] OutputTarget Target(int64_t i) const { return {windows[i], hidden[i]}; }
};

TrainingText ReadText(const Checkpoint& source,
                      const Windows& windows,
                      OutputLoss loss,
                      Progress& progress) {
  TrainingText text{windows, model::EmbedWindows(source, windows), {}};
  if (loss == OutputLoss::kKl) {
    text.hidden = model::StreamWindows(source, windows, {}, nullptr, progress, "teacher");
  } else {
    text.hidden.resize(windows.size());
  }
  return text;
}

// One run of the training: the schedule, the optimizer's state, and the best weights so far.
class GlobalTraining {
 public:
  GlobalTraining(TrainedModel& model,
                 const TrainingText& text,
                 const GlobalTuneOptions& options,
                 std::filesystem::path path,
                 std::string stage,
                 int workers,
                 Progress& progress)
      : model_(model),
        text_(text),
        options_(options),
        path_(std::move(path)),
        stage_(std::move(stage)),
        workers_(workers),
        progress_(progress),
        split_(SplitWindows(std::ssize(text.windows))) {
    const auto count = static_cast<int64_t>(split_.training.size());
    const auto length = static_cast<int64_t>(text.windows[0].size());
    step_windows_ = std::clamp<int64_t>(options.step_tokens / length, 1, count);
    pass_steps_ = (count + step_windows_ - 1) / step_windows_;
    check_every_ = std::max<int64_t>(1, pass_steps_ / options.pass_checks);
    adamw_.steps = pass_steps_ * options.passes;
  }

  // Leaves the best weights in the model.
  Json Run() {
    if (std::filesystem::exists(path_)) {
      Resume();
    } else {
      state_.values = model_.Scaled();
      state_.first_moment = torch::zeros_like(state_.values);
      state_.second_moment = torch::zeros_like(state_.values);
      state_.best = state_.values.clone();
      Check();
    }
    const double loss_before = curve_[0]["check_loss"].get<double>();
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

  // An interruption is noticed between steps, when the state is whole.
  void ReportOrSave() {
    try {
      progress_.Report(stage_, step_, adamw_.steps);
    } catch (const Error&) {
      Save();
      throw;
    }
  }

  // The windows of the step: every pass has its own order, which depends on the seed alone.
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
    std::vector<Tensor> gradients(windows.size());  // [count] each, while they are needed
    std::vector<double> losses(windows.size());
    Tensor sum;
    double loss = 0.0, squares = 0.0;
    model::RunOrdered(
        std::ssize(windows),
        workers_,
        [&](int64_t i) {
          gradients[i] = torch::empty({model_.count()});
          losses[i] = Loss(windows[i], &gradients[i]);
        },
        [&](int64_t i) {
          squares += Square(gradients[i].norm().item<double>());
          sum = i == 0 ? gradients[i] : sum.add_(gradients[i]);
          gradients[i] = Tensor();
          loss += losses[i];
        });
    const auto share = 1.0 / static_cast<double>(windows.size());
    sum.mul_(share);
    const double norm = sum.norm().item<double>();
    CheckFinite(loss, "loss");
    CheckFinite(norm, "gradient");
    noise_.Add(std::ssize(windows), squares, Square(norm / share));
    model::AdamWStep(adamw_, step_, norm, model_.count(), sum, state_);
    model_.SetScaled(state_.values);
    loss_sum_ += loss * share;
    ++loss_steps_;
  }

  double Loss(int64_t window, Tensor* gradient) const {
    return model_.Loss(text_.embedded[window], text_.Target(window), options_.loss, gradient);
  }

  void CheckFinite(double value, const char* what) const {
    KVC_CHECK(std::isfinite(value),
              kNumeric,
              stage_,
              ", step ",
              step_ + 1,
              ": expected a finite ",
              what,
              ", got ",
              value,
              "; the state of the last check is kept, run again with a lower --lr");
  }

  // Measures the windows that are not trained on, keeps what is better, and writes the state.
  void Check() {
    std::vector<double> losses(split_.checked.size());
    double sum = 0.0;
    model::RunOrdered(
        std::ssize(losses),
        workers_,
        [&](int64_t i) { losses[i] = Loss(split_.checked[i], nullptr); },
        [&](int64_t i) { sum += losses[i]; });
    CheckFinite(sum, "loss");
    const double loss = sum / static_cast<double>(losses.size());
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

  // Back to the best weights, more slowly from there.
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
    curve_.push_back(
        {{"step", step_}, {"lr", rate}, {"train_loss", train_loss}, {"check_loss", check_loss}});
    progress_.Log(stage_ + ": step " + std::to_string(step_) + " of " +
                  std::to_string(adamw_.steps) + ": loss " + std::to_string(train_loss) +
                  ", on windows not trained on " + std::to_string(check_loss));
    loss_sum_ = 0.0;
    loss_steps_ = 0;
  }

  [[nodiscard]] double BestLoss() const { return curve_[kept_row_]["check_loss"].get<double>(); }

  [[nodiscard]] Json NoiseTokens() const {
    const std::optional<double> windows = noise_.Windows();
    if (!windows) return nullptr;
    return std::llround(*windows * static_cast<double>(text_.windows[0].size()));
  }

  [[nodiscard]] Json Report() const {
    const auto length = static_cast<int64_t>(text_.windows[0].size());
    return {{"loss", OutputLossName(options_.loss)},
            {"lr", options_.learning_rate},
            {"steps", step_},
            {"kept_step", curve_[kept_row_]["step"]},
            {"tokens", std::ssize(split_.training) * length},
            {"loss_before", curve_[0]["check_loss"]},
            {"loss_after", BestLoss()},
            {"backoff", backoff_},
            {"noise_tokens", NoiseTokens()},
            {"curve", curve_}};
  }

  void Save() {
    state_.progress = {{"step", step_},
                       {"kept_row", kept_row_},
                       {"curve", curve_},
                       {"loss_sum", loss_sum_},
                       {"loss_steps", loss_steps_},
                       {"backoff", backoff_},
                       {"noise", noise_.ToJson()}};
    model::SaveTrainingState(state_, path_);
  }

  void Resume() {
    state_ = model::LoadTrainingState(path_, model_.count());
    const std::string origin = path_.filename().string();
    KVC_CHECK(state_.best.defined(), kBadInput, origin, ": expected the best weights, got none");
    step_ = GetInt(state_.progress, "step", origin);
    kept_row_ = GetInt(state_.progress, "kept_row", origin);
    curve_ = GetArray(state_.progress, "curve", origin);
    loss_sum_ = GetDouble(state_.progress, "loss_sum", origin);
    loss_steps_ = GetInt(state_.progress, "loss_steps", origin);
    backoff_ = GetDouble(state_.progress, "backoff", origin);
    noise_ = GradientNoise::FromJson(GetObject(state_.progress, "noise", origin), origin);
    KVC_CHECK(kept_row_ >= 0 && kept_row_ < std::ssize(curve_),
              kBadInput,
              origin,
              ": kept_row: expected a row of the curve, got ",
              kept_row_);
    model_.SetScaled(state_.values);
  }

  TrainedModel& model_;
  const TrainingText& text_;
  const GlobalTuneOptions& options_;
  const std::filesystem::path path_;
  const std::string stage_;  // of progress, and in messages
  const int workers_;
  Progress& progress_;
  const TuneSplit split_;
  int64_t step_windows_ = 1;
  int64_t pass_steps_ = 1;
  int64_t check_every_ = 1;
  model::AdamWOptions adamw_;
  model::TrainingState state_;  // of the scaled matrices
  int64_t step_ = 0;            // steps done
  Json curve_ = Json::array();  // one row for each check
  int64_t kept_row_ = 0;        // of the curve: the best check
  double loss_sum_ = 0.0;       // of the steps since the last check
  int64_t loss_steps_ = 0;
  double backoff_ = 1.0;  // of the rate
  GradientNoise noise_;
};

std::vector<Tensor> SizeWindows(const TrainingText& text) {
  const auto count = std::min<int64_t>(kSizeWindows, std::ssize(text.embedded));
  return {text.embedded.begin(), text.embedded.begin() + count};
}

model::LayerWeights LoadAndRelease(const Checkpoint& source, int64_t layer) {
  model::LayerWeights weights = model::LoadLayer(source, layer);
  source.ReleaseLayer(layer);
  return weights;
}

}  // namespace

double GlobalRateShare(OutputLoss loss, double loss_before, const ModelConfig& config) {
  const double share =
      loss == OutputLoss::kKl ? std::sqrt(std::min(1.0, loss_before)) : kCeRateShare;
  const double depth = std::max(1.0, static_cast<double>(config.num_layers) / kReferenceLayers);
  return share * kReferenceWidth / static_cast<double>(config.model_width) / depth;
}

Json TuneGlobally(const Checkpoint& source,
                  const KeyFactors& keys,
                  const Windows& windows,
                  const GlobalTuneOptions& options,
                  const std::filesystem::path& state,
                  Progress& progress,
                  std::vector<LayerFactors>& factors) {
  const TrainingText text = ReadText(source, windows, options.loss, progress);
  const model::OuterWeights outer = model::LoadOuter(source);
  const ModelConfig thin = ThinConfig(source.config(), keys);
  std::vector<model::LayerWeights> layers;
  for (int64_t l = 0; l < thin.num_layers; ++l) {
    layers.push_back(ThinLayer(thin, LoadAndRelease(source, l), factors[l]));
  }
  const model::SingleThreadedOperations single;
  ThreadPool pool(single.outer_threads());
  TrainedModel model(thin, std::move(layers), outer, SizeWindows(text), pool);
  Json report =
      GlobalTraining(model, text, options, state, "global tuning", single.outer_threads(), progress)
          .Run();
  if (report["kept_step"].get<int64_t>() > 0) {
    for (int64_t l = 0; l < thin.num_layers; ++l) TakeFactors(model.layers()[l], factors[l]);
  }
  return report;
}

Json TuneControl(const Checkpoint& source,
                 const model::ReferenceRun& held_back,
                 const Windows& windows,
                 const GlobalTuneOptions& options,
                 const std::filesystem::path& state,
                 Progress& progress) {
  Json report = {{"loss", OutputLossName(options.loss)}, {"steps", 0}};
  std::vector<Tensor> hidden = model::EmbedWindows(source, held_back.windows);  // [T, E] each
  if (options.loss == OutputLoss::kKl) {
    hidden = held_back.hidden;
  } else {
    const TrainingText text = ReadText(source, windows, options.loss, progress);
    std::vector<model::LayerWeights> layers;
    for (int64_t l = 0; l < source.config().num_layers; ++l) {
      layers.push_back(LoadAndRelease(source, l));
    }
    const model::SingleThreadedOperations single;
    ThreadPool pool(single.outer_threads());
    TrainedModel model(
        source.config(), std::move(layers), held_back.outer, SizeWindows(text), pool);
    report =
        GlobalTraining(model, text, options, state, "control", single.outer_threads(), progress)
            .Run();
    for (int64_t l = 0; l < source.config().num_layers; ++l) {
      RunLayer(source.config(), model.layers()[l], l, pool, hidden);
    }
  }
  const auto distance =
      model::CompareHidden(held_back, source.config(), held_back.outer, hidden, progress);
  report["kld"] = distance.kld;
  report["perplexity"] = distance.perplexity;
  return report;
}

}  // namespace kvc::factorize
