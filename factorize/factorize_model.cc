#include "factorize/factorize_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <span>
#include <utility>

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/shared_output.h"
#include "core/tokenizer/tokenizer.h"
#include "factorize/calibration_text.h"
#include "factorize/closed_forms.h"
#include "factorize/held_back.h"
#include "factorize/thin_reader.h"
#include "factorize/thin_writer.h"
#include "factorize/tune_global.h"
#include "factorize/tune_local.h"
#include "model/compute.h"
#include "model/threads.h"

namespace kvc::factorize {
namespace {

namespace fs = std::filesystem;

// Every file and folder that is read.
std::vector<std::filesystem::path> InputsOf(const FactorizeOptions& options) {
  std::vector<std::filesystem::path> inputs = {options.model, options.source};
  inputs.insert(inputs.end(), options.calibration.begin(), options.calibration.end());
  return inputs;
}

TextRequest RequestText(const FactorizeOptions& options) {
  TextRequest request;
  request.files = options.calibration;
  request.window = options.window;
  request.calibration = options.calibration_tokens;
  request.held_back = options.held_back;
  request.tuning = options.tunes() ? options.tune_tokens : 0;
  return request;
}

// Returns a file's size and the hash of its ends.
std::string EndsOf(const fs::path& file) {
  constexpr uint64_t kEnd = 1 << 16;
  const uint64_t size = fs::file_size(file);
  std::ifstream stream(file, std::ios::binary);
  std::string ends(std::min(size, 2 * kEnd), '\0');
  const uint64_t half = ends.size() / 2;
  stream.read(ends.data(), static_cast<std::streamsize>(half));
  stream.seekg(static_cast<std::streamoff>(size - (ends.size() - half)));
  stream.read(ends.data() + half, static_cast<std::streamsize>(ends.size() - half));
  KVC_CHECK(stream.good(), kIo, "{}: expected {} bytes, got fewer", file.string(), size);
  return std::to_string(size) + " bytes, ends " + Sha256(std::as_bytes(std::span(ends)));
}

double KeyBytesShare(const ModelConfig& config, const KeyFactors& keys) {
  int64_t width = 0;
  for (const auto& ranks : keys.ranks) width = std::accumulate(ranks.begin(), ranks.end(), width);
  return static_cast<double>(width) /
         static_cast<double>(config.num_layers * config.num_kv_heads * config.head_width);
}

FileHashes HashCalibration(const FactorizeOptions& options) {
  FileHashes hashes;
  for (const auto& file : options.calibration) {
    hashes.emplace_back(file.filename().string(), Sha256File(file));
  }
  return hashes;
}

// The hash of every file of a checkpoint's tensors.
Json HashFiles(const Checkpoint& checkpoint) {
  Json hashes = Json::object();
  for (const auto& file : checkpoint.tensors().files()) {
    hashes[file.filename().string()] = Sha256File(file);
  }
  return hashes;
}

// Returns what must be equal on all ranks. Tensor files are told apart by their sizes, and the two
// ends of each, because hashing them takes longer than reading a rank's layers.
RankFacts FactsOf(const FactorizeOptions& options,
                  const Checkpoint& source,
                  const FileHashes& calibration) {
  RankFacts facts = {{"version", std::string(Version())},
                     {"options", ToJson(options, calibration).dump()}};
  const auto add_model = [&facts](const std::string& name, const fs::path& folder,
                                  const std::vector<fs::path>& files) {
    facts.emplace_back(name + ": config.json", Sha256File(folder / "config.json"));
    for (const fs::path& file : files) {
      facts.emplace_back(name + ": " + file.filename().string(), EndsOf(file));
    }
  };
  add_model("model", source.directory(), source.tensors().files());
  if (!options.source.empty()) {
    const Checkpoint thin = Checkpoint::Open(options.model);
    add_model("thin model", options.model, thin.tensors().files());
  }
  return facts;
}

// Returns everything that tuned weights depend on except the learning rates; `settings` are the
// options.
Json TuneSettings(const FactorizeOptions& options, const Checkpoint& source, Json settings) {
  settings.erase("lr");
  if (settings.contains("global")) settings["global"].erase("lr");
  settings["source"] = HashFiles(source);
  if (!options.source.empty()) settings["model"] = HashFiles(Checkpoint::Open(options.model));
  return settings;
}

void CheckOptions(const FactorizeOptions& options) {
  KVC_CHECK(options.window >= 2 && options.calibration_tokens >= options.window, kUsage,
            "--calib-tokens: expected at least one window of {} tokens, got {}", options.window,
            options.calibration_tokens);
  KVC_CHECK(!options.spread || !options.calibration.empty(), kUsage,
            "--calib: expected a text for --spread, which measures how much each layer matters, "
            "got none");
  KVC_CHECK(!options.tunes() || !options.calibration.empty(), kUsage,
            "--calib: expected a text to tune on, got none");
  KVC_CHECK(options.source.empty() || options.tunes(), kUsage,
            "--source: expected --tune local or global, which goes on with a thin model, got none");
  KVC_CHECK(!options.control || (options.tune_global && options.held_back > 0), kUsage,
            "--control: expected --tune global and windows held back, got --tune {} and {}",
            TuneText(options), options.held_back);
}

void CheckObjective(const FactorizeOptions& options, Objective objective) {
  KVC_CHECK(!NeedsCalibration(objective) || !options.calibration.empty(), kUsage,
            "--calib: expected a text for the objective {}, got none; name a file or use "
            "--objective weight",
            ObjectiveName(objective));
}

void CheckSource(const ModelConfig& config) {
  KVC_CHECK(!config.thin(), kBadInput,
            "config.json: expected full keys, got {} ones; factorize the model that they come from",
            KeyLayoutName(config.keys.layout));
}

// Returns the request for a layout. Throws for an objective or a rank that it cannot have.
FactorRequest MakeRequest(const FactorizeOptions& options,
                          const LayoutChoice& choice,
                          const ModelConfig& config) {
  FactorRequest request;
  request.layout = choice.layout;
  request.num_groups = choice.num_groups;
  const int64_t width = GroupWidth(config, choice.num_groups);
  request.objective = ResolveObjective(options.objective, choice.layout, width);
  request.rank = options.rank;
  (void)RankFor(request.rank, width, request.layout);
  return request;
}

// Thin keys of all layers, wherever they come from.
struct ThinKeys {
  KeyFactors keys;
  std::vector<LayerFactors> factors;
};

// Computes the closed forms of the requested layout, or of the best one with --layout auto, with
// ranks spread if requested. Fills result.closed_forms and result.objective.
ThinKeys MakeClosedForms(const FactorizeOptions& options,
                         const Checkpoint& source,
                         const Windows& calibration,
                         const HeldBack& held_back,
                         Progress& progress,
                         Ranks& ranks,
                         FactorizationResult& result) {
  ClosedForms& record = result.closed_forms.emplace();
  const ModelConfig& config = source.config();
  FactorRequest request =
      MakeRequest(options, ResolveLayout(options.layout, config, options.objective), config);
  const auto svd = linalg::Svd::Create(options.svd, model::NumThreads());
  std::vector<LayerFactors> factors;
  if (options.layout.automatic) {
    LayoutComparison comparison =
        CompareLayouts(source, options.rank, options.objective, calibration, held_back.reference(),
                       *svd, progress, ranks);
    request = MakeRequest(options, comparison.choice, config);
    factors = std::move(comparison.factors);
    record.layout_choice = std::move(comparison.report);
  }
  result.objective = ObjectiveName(request.objective);
  if (factors.empty()) {
    factors = FactorLayers(source, request, calibration, *svd, progress, ranks);
  }
  if (options.spread) {
    record.sensitivity =
        SpreadFactors(source, request, calibration, *svd, progress, factors, ranks);
  }
  record.calibration_windows = std::ssize(calibration);
  for (const LayerFactors& layer : factors) {
    record.layers.push_back({layer.ranks, layer.logit_errors, layer.spectra});
  }
  KeyFactors keys = MakeKeys(request, factors);
  return {std::move(keys), std::move(factors)};
}

// Reads the thin model whose source is --source. Fills result.inherited and result.objective.
ThinKeys ReadThinKeys(const FactorizeOptions& options,
                      const Checkpoint& source,
                      FactorizationResult& result) {
  const Checkpoint thin = Checkpoint::Open(options.model);
  KVC_CHECK(thin.config().thin(), kBadInput,
            "--source: expected a MODEL with thin keys, which was made from it, got full ones");
  CheckSameModel(source, thin);
  const auto path = options.model / "factorization.json";
  const Json before = std::filesystem::exists(path) ? ReadJsonFile(path) : Json::object();
  for (const char* key : {"layout_choice", "sensitivity", "calibration_windows", "layers"}) {
    if (before.contains(key)) result.inherited[key] = before[key];
  }
  result.objective = before.value("objective", "unknown");
  result.inherited["objective"] = result.objective;
  for (const char* key : {"options", "tuning", "global_tuning", "started_from"}) {
    if (before.contains(key)) result.inherited["started_from"][key] = before[key];
  }
  return {thin.config().keys, ReadFactors(thin)};
}

// Runs the requested tuning.
void Tune(const FactorizeOptions& options,
          const Checkpoint& source,
          const CalibrationText& text,
          const HeldBack& held_back,
          const TuneState& state,
          Progress& progress,
          Ranks& ranks,
          ThinKeys& thin,
          FactorizationResult& result) {
  result.untuned = held_back.Measure(thin.keys, thin.factors);
  if (options.tune) {
    result.local_tuning = TuneLocally(source, thin.keys, text.tuning, options.tuning, state,
                                      progress, thin.factors, ranks);
  }
  if (!options.tune_global) return;
  result.global_tuning = TuneGlobally(source, thin.keys, text.global_tuning, options.global,
                                      state.GlobalPath("thin"), progress, thin.factors, ranks);
  if (!options.control) return;
  result.control = TuneControl(source, *held_back.reference(), text.global_tuning, options.global,
                               state.GlobalPath("control"), progress);
}

}  // namespace

FactorizationPlan PlanFactorization(const FactorizeOptions& options, int ranks) {
  const ModelConfig config = ReadModelConfig(options.model);
  CheckSource(config);
  FactorizationPlan plan;
  plan.layout = ResolveLayout(options.layout, config, options.objective);
  const auto& [layout, num_groups] = plan.layout;
  plan.group_width = GroupWidth(config, num_groups);
  plan.objective = ResolveObjective(options.objective, layout, plan.group_width);
  plan.group_rank = RankFor(options.rank, plan.group_width, layout);
  const int64_t full_width = config.num_layers * config.num_kv_heads * config.head_width;
  const int64_t key_width = config.num_layers * num_groups * plan.group_rank;
  const std::vector<int64_t> group_ranks(num_groups, plan.group_rank);
  plan.key_bytes_share = static_cast<double>(key_width) / static_cast<double>(full_width);
  plan.full_elements = 2 * full_width;
  plan.thin_elements = full_width + key_width;
  plan.rebuild_macs = CostOfLayout(config, layout, group_ranks).rebuild_macs;
  plan.memory = MakeMemoryTable(config, key_width, options.lengths);
  plan.layouts = MakeLayoutTable(config, options.rank, plan.group_width);
  plan.rank_cost = PredictRankCost(config, {plan.layout, plan.objective, plan.group_rank}, options,
                                   ranks, model::NumThreads());
  return plan;
}

FactorizationResult FactorizeModel(const FactorizeOptions& options,
                                   Progress& progress,
                                   Ranks& ranks) {
  const bool goes_on = !options.source.empty();
  const Checkpoint source = Checkpoint::Open(goes_on ? options.source : options.model);
  for (const std::string& warning : source.warnings()) progress.Warn(warning);
  const ModelConfig& config = source.config();
  CheckSource(config);
  CheckOptions(options);
  if (!goes_on) {
    const LayoutChoice choice = ResolveLayout(options.layout, config, options.objective);
    CheckObjective(options, MakeRequest(options, choice, config).objective);
  }
  CalibrationText text;
  if (!options.calibration.empty()) {
    text = CutText(*Tokenizer::Load(source.directory()), RequestText(options));
  }
  FactorizationResult result;
  result.options = options;
  result.calibration = HashCalibration(options);
  CheckAgreement(ranks, FactsOf(options, source, result.calibration));
  SharedOutput output(ranks, options.output, InputsOf(options), options.force,
                      /*resumable=*/options.tunes());
  const fs::path folder = output.path();
  const HeldBack held_back(source, text.held_back, progress, ranks);
  ThinKeys thin = goes_on ? ReadThinKeys(options, source, result)
                          : MakeClosedForms(options, source, text.calibration, held_back, progress,
                                            ranks, result);
  result.layout = {thin.keys.layout, thin.keys.num_groups};
  result.key_bytes_share = KeyBytesShare(config, thin.keys);
  result.token_cost = CostOfKeys(config, thin.keys);
  if (options.tunes()) {
    const TuneState state(folder,
                          ranks.is_first()
                              ? TuneSettings(options, source, ToJson(options, result.calibration))
                              : Json(),
                          ranks);
    model::RunOn(options.global.compute, [&] {
      Tune(options, source, text, held_back, state, progress, ranks, thin, result);
    });
    state.Remove();
  }
  if (ranks.is_first()) {
    WriteThinCheckpoint(source, thin.keys, thin.factors, folder, progress);
  }
  ranks.Barrier();
  result.written = held_back.MeasureWritten(folder);
  if (ranks.is_first()) {
    Json file = ToJson(result);
    file["kvc"] = Version();
    WriteJsonFile(folder / "factorization.json", file);
  }
  output.Commit();
  return result;
}

}  // namespace kvc::factorize
