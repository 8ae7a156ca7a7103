#include "profile/profile_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include <torch/types.h>

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/rank_facts.h"
#include "model/embedding_rows.h"
#include "model/streamed.h"
#include "model/threads.h"
#include "profile/basis_grams.h"
#include "profile/curve_collector.h"
#include "profile/latent_keys.h"
#include "profile/mixed_curves.h"
#include "profile/needle_importance.h"
#include "profile/profile_state.h"
#include "profile/step_collector.h"
#include "profile/utility_curve.h"
#include "profile/window_sums.h"
#include "profile/window_taps.h"

namespace kvc::profile {
namespace {

Json OptionsJson(const ProfileOptions& options) {
  Json json;
  json["scorers"] = Json::array();
  for (const ScorerSpec& spec : options.scorers) json["scorers"].push_back(ToString(spec));
  json["context"] = options.context;
  json["horizon"] = options.horizon;
  json["sinks"] = options.sinks;
  json["window"] = options.window;
  if (options.positions) json["positions"] = *options.positions;
  json["continuation"] = ContinuationName(options.continuation);
  json["importance"] = ImportanceName(options.importance);
  json["tiers"] = options.tiers.text;
  return json;
}

std::string WindowsDigest(const std::vector<std::vector<int32_t>>& windows) {
  std::string digests;
  for (const std::vector<int32_t>& ids : windows) {
    digests += Sha256(std::as_bytes(std::span(ids))) + "\n";
  }
  return Sha256(std::as_bytes(std::span(digests)));
}

// Returns means over windows, rounded to float. The curves never rise, despite the rounding of the
// sums.
std::vector<float> MeanCurves(const std::vector<double>& sums, int64_t num_windows) {
  std::vector<float> curves(sums.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    curves[i] = static_cast<float>(sums[i] / static_cast<double>(num_windows));
    if (i % kCurvePoints != 0) curves[i] = std::min(curves[i], curves[i - 1]);
  }
  return curves;
}

// Each head's mass of evictable importance as a share of the model's: [L * G].
std::vector<float> HeadShares(const std::vector<float>& oracle_curve) {
  double total = 0.0;
  for (size_t i = 0; i < oracle_curve.size(); i += kCurvePoints) total += oracle_curve[i];
  KVC_CHECK(total > 0.0, kNumeric,
            "oracle importance: expected a positive sum, got {}; do the values or the output "
            "projections hold only zeros?",
            total);
  std::vector<float> shares;
  for (size_t i = 0; i < oracle_curve.size(); i += kCurvePoints) {
    shares.push_back(static_cast<float>(oracle_curve[i] / total));
  }
  return shares;
}

// Hidden states of this rank's windows in the saved run, checked against this one.
std::vector<torch::Tensor> RestoreHidden(const ProfileState& state,
                                         const ModelConfig& config,
                                         int64_t num_windows,
                                         int64_t length) {
  bool fits = state.next_layer >= 1 && state.next_layer <= config.num_layers &&
              state.num_windows == num_windows;
  std::vector<torch::Tensor> hidden;
  for (const std::vector<float>& values : state.hidden) {
    fits = fits && std::ssize(values) == length * config.model_width;
    if (!fits) break;
    hidden.push_back(
        torch::from_blob(const_cast<float*>(values.data()), {length, config.model_width}).clone());
  }
  KVC_CHECK(fits, kBadInput, "saved progress: expected the hidden states of this run, got others");
  return hidden;
}

// Restores the sums of the saved run, checked against this run's, which are zeros.
void RestoreSums(ProfileSums saved, ProfileSums& sums) {
  bool fits = saved.size() == sums.size();
  for (const auto& [name, sum] : sums) {
    const auto found = saved.find(name);
    fits = fits && found != saved.end() && found->second.size() == sum.size();
  }
  KVC_CHECK(fits, kBadInput, "saved progress: expected the sums of this run, got others");
  sums = std::move(saved);
}

ProfileData Finish(const ProfileSums& sums,
                   const ModelConfig& config,
                   const ProfileOptions& options,
                   int64_t num_windows) {
  ProfileData data;
  data.tool_version = Version();
  data.num_layers = config.num_layers;
  data.num_kv_heads = config.num_kv_heads;
  data.context = options.context;
  data.horizon = options.horizon;
  data.windows = num_windows;
  data.sinks = options.sinks;
  data.window = options.window;
  for (const ScorerSpec& spec : options.scorers) {
    data.curves[spec] = MeanCurves(sums.at(CurveSum(ToString(spec))), num_windows);
    data.error_curves[spec] = MeanCurves(sums.at(ErrorSum(ToString(spec))), num_windows);
  }
  data.oracle_curve = MeanCurves(sums.at(CurveSum(kOracleName)), num_windows);
  data.tiers = options.tiers.tiers;
  for (const ScorerSpec& spec : options.scorers) {
    const auto found = sums.find(MixedSum(ToString(spec)));
    if (found != sums.end()) data.mixed_curves[spec] = MeanCurves(found->second, num_windows);
  }
  data.oracle_importance = HeadShares(data.oracle_curve);
  data.importance_method = "oracle";
  data.importance_tests = num_windows;
  data.importance = data.oracle_importance;
  return data;
}

// Asks the needle questions; their scores become the importance, unless too few are answered.
void AddNeedleImportance(const Checkpoint& checkpoint,
                         const std::vector<NeedlePrompt>& prompts,
                         ProfileData& data,
                         Progress& progress,
                         Ranks& ranks) {
  const NeedleImportance needles = ScoreNeedles(checkpoint, prompts, progress, ranks);
  data.needle_tests = needles.tests;
  data.needle_passed = needles.passed;
  const double total = std::accumulate(needles.scores.begin(), needles.scores.end(), 0.0);
  if (total > 0.0) {
    for (const double score : needles.scores) {
      data.needle_importance.push_back(static_cast<float>(score / total));
    }
  }
  const std::string passed = std::to_string(needles.passed) + " of " +
                             std::to_string(needles.tests) + " needle questions answered";
  if (!EnoughPassed(needles)) {
    progress.Log("importance: oracle instead of needle: " + passed +
                 ", expected a quarter or more");
    return;
  }
  progress.Log("importance: " + passed);
  data.importance_method = "needle";
  data.importance_tests = needles.passed;
  data.importance = data.needle_importance;
}

void CheckInputs(const ProfileInputs& inputs, const ProfileOptions& options) {
  const std::vector<std::vector<int32_t>>& windows = inputs.windows;
  const int64_t length = options.context + options.horizon;
  KVC_CHECK(inputs.make_bases != nullptr, kInternal, "profile: expected a maker of bases");
  KVC_CHECK((options.importance == Importance::kNeedle) == !inputs.needles.empty(), kInternal,
            "profile: expected needle prompts with importance by needles only");
  KVC_CHECK(!windows.empty(), kBadShape, "calibration windows: expected one or more, got none");
  for (const std::vector<int32_t>& ids : windows) {
    KVC_CHECK(std::ssize(ids) == length, kBadShape,
              "calibration window: expected {} tokens, got {}", length, ids.size());
  }
}

Json AllOptions(const ProfileInputs& inputs, const ProfileOptions& options) {
  Json json = OptionsJson(options);
  json.update(inputs.provenance);
  json["windows_sha256"] = WindowsDigest(inputs.windows);
  if (inputs.needles.empty()) return json;
  std::vector<std::vector<int32_t>> prompts;
  for (const NeedlePrompt& prompt : inputs.needles) {
    for (const auto* part : {&prompt.context, &prompt.question, &prompt.answer}) {
      prompts.push_back(*part);
    }
  }
  json["needle_tests"] = prompts.size() / 3;
  json["needles_sha256"] = WindowsDigest(prompts);
  return json;
}

// Returns what the result depends on; a saved run with another signature is a different run.
Json SignatureOf(const Checkpoint& checkpoint,
                 const std::vector<std::vector<int32_t>>& windows,
                 const Json& options) {
  Json signature = {{"kvc", Version()},
                    {"model_sha256", ModelDigest(checkpoint.directory())},
                    {"windows", windows.size()}};
  signature.update(options);
  return signature;
}

// Squared norms of the rows of every window, [T] each.
std::vector<torch::Tensor> AllRowEnergies(const std::vector<torch::Tensor>& hidden) {
  std::vector<torch::Tensor> energies;
  for (const torch::Tensor& rows : hidden) energies.push_back(RowEnergies(rows));
  return energies;
}

void Save(const std::filesystem::path& directory,
          const Json& signature,
          int64_t next_layer,
          const ProfileSums& sums,
          const std::vector<torch::Tensor>& hidden,
          Ranks& ranks) {
  std::vector<torch::Tensor> dense;
  std::vector<std::span<const float>> rows;
  for (const torch::Tensor& x : hidden) {
    dense.push_back(x.contiguous());
    rows.emplace_back(dense.back().data_ptr<float>(), dense.back().numel());
  }
  SaveState(directory, signature, next_layer, sums, rows, ranks);
}

// Starts at the end of `state`, an interrupted run of the same inputs, otherwise at the embeddings.
// `windows` are this rank's, of `num_windows` with `length` tokens.
void Begin(const Checkpoint& checkpoint,
           const std::vector<std::vector<int32_t>>& windows,
           int64_t num_windows,
           int64_t length,
           std::optional<ProfileState> state,
           model::StreamOptions& stream,
           ProfileSums& sums) {
  if (!state) {
    stream.initial_hidden = model::EmbedWindows(checkpoint, windows);
    return;
  }
  stream.first_layer = state->next_layer;
  stream.initial_hidden = RestoreHidden(*state, checkpoint.config(), num_windows, length);
  RestoreSums(std::move(state->sums), sums);
}

// Returns the sums that the visits of a window add to at one layer.
std::vector<std::span<double>> SlotsOf(int64_t layer,
                                       int64_t num_layers,
                                       const GramCollector& grams,
                                       const CurveCollector& curves,
                                       ProfileSums& sums) {
  std::vector<std::span<double>> slots;
  for (const std::string& name : curves.SumNames()) {
    std::vector<double>& all = sums.at(name);
    const size_t size = all.size() / num_layers;
    slots.push_back(std::span(all).subspan(layer * size, size));
  }
  for (const std::string& name : grams.SumNames(layer)) slots.emplace_back(sums.at(name));
  return slots;
}

}  // namespace

ProfileData ProfileModel(const Checkpoint& checkpoint,
                         const ProfileInputs& inputs,
                         const ProfileOptions& options,
                         const std::filesystem::path& directory,
                         Progress& progress,
                         Ranks& ranks) {
  const ModelConfig& config = checkpoint.config();
  CheckProfileOptions(options, config);
  CheckInputs(inputs, options);
  const int64_t num_windows = std::ssize(inputs.windows);
  const std::vector<int64_t> own = ranks.PartsOf(num_windows);
  std::vector<std::vector<int32_t>> windows;  // of this rank
  for (const int64_t w : own) windows.push_back(inputs.windows[w]);
  const int64_t length = options.context + options.horizon;
  const Json all_options = AllOptions(inputs, options);
  const Json signature = SignatureOf(checkpoint, inputs.windows, all_options);
  CheckAgreement(ranks, FactsOf(signature));  // before anyone reads the progress of a run

  ProfileSums sums;
  CurveCollector curves(config, options, sums);
  const bool in_bits = LatentsInBits(config, options.tiers);
  GramCollector grams(config, options.sinks, options.horizon, sums, in_bits);
  StepCollector steps(config, options.sinks, sums, ranks, in_bits);
  MixedCollector mixed(config, options, sums, ranks);
  model::StreamOptions stream;
  stream.taps.projections = true;
  Begin(checkpoint, windows, num_windows, length, LoadState(directory, signature, ranks), stream,
        sums);
  ranks.Barrier();  // the state that was read is replaced below
  if (stream.first_layer > 0) {
    progress.Log("profile: going on with layer " + std::to_string(stream.first_layer));
  }
  std::vector<torch::Tensor> energies = AllRowEnergies(stream.initial_hidden);
  std::vector<LayerBases> bases;
  const auto add_bases = [&](int64_t layer) {
    const int64_t tokens = num_windows * (length - options.sinks);
    bases.push_back(inputs.make_bases(layer, grams.Finish(layer, num_windows, tokens)));
    steps.Finish(layer, bases.back());
    mixed.Finish(layer, bases.back());
  };
  for (int64_t l = 0; l < stream.first_layer; ++l) add_bases(l);
  std::optional<WindowSums> layer_sums;  // of the layer that is visited
  const auto begin_layer = [&](int64_t layer) {
    if (layer == config.num_layers) return;  // a run that was killed behind the last one
    layer_sums.emplace(ranks, num_windows, SlotsOf(layer, config.num_layers, grams, curves, sums));
  };
  begin_layer(stream.first_layer);
  stream.after_layer = [&](int64_t layer, const std::vector<torch::Tensor>& hidden) {
    layer_sums->Finish();
    add_bases(layer);
    energies = AllRowEnergies(hidden);
    Save(directory, signature, layer + 1, sums, hidden, ranks);
    begin_layer(layer + 1);
  };
  const auto visit = [&](int64_t layer, int64_t window, const model::LayerTaps& taps,
                         const model::LayerWeights& weights) {
    // A visit's operations are small; threads inside them cost more than they gain.
    const model::SingleThreadedOperations single;
    const int64_t tokens = SeenContext(config, options, layer) + options.horizon;
    const model::LayerTaps seen = SeenTaps(taps, tokens);
    const torch::Tensor energy = energies[window].narrow(0, length - tokens, tokens);
    curves.Visit(layer, seen, weights, energy);
    const int64_t first = FirstPosition(config, options, own[window], num_windows);
    const model::LayerTaps moved = MovedTaps(config, weights, layer, taps, first);
    grams.Visit(layer, moved, weights, energies[window], curves.output_grams());
    steps.Visit(layer, moved, weights);
    // What makes keys thin behind their rotation does not turn with them.
    const bool turns = config.keys.layout != KeyLayout::kPostRope;
    mixed.Visit(layer, turns ? SeenTaps(moved, tokens) : seen, weights, energy,
                curves.output_grams(), curves.scores());
    layer_sums->TakeWindow();
  };
  static_cast<void>(model::StreamWindows(checkpoint, windows, stream, visit, progress, "profile"));
  ProfileData data = Finish(sums, config, options, num_windows);
  data.model_sha256 = signature["model_sha256"];
  data.options = all_options;
  data.bases = std::move(bases);
  if (!inputs.needles.empty()) {
    AddNeedleImportance(checkpoint, inputs.needles, data, progress, ranks);
  }
  return data;
}

bool HasProgress(const std::filesystem::path& directory) {
  return std::filesystem::exists(StatePath(directory));
}

void RemoveProgress(const std::filesystem::path& directory) { RemoveState(directory); }

}  // namespace kvc::profile
