#include "factorize/factorize_model.h"

#include <memory>
#include <numeric>
#include <optional>

#include "core/checkpoint.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text_input.h"
#include "core/tokenizer.h"
#include "core/version.h"
#include "factorize/key_collector.h"
#include "factorize/thin_writer.h"
#include "model/streamed.h"

namespace kvc::factorize {
namespace {

using Windows = std::vector<std::vector<int32_t>>;

// Calibration windows and the ones held back for measuring, taken evenly from the same text.
struct CalibrationText {
  Windows calibration;
  Windows held_back;
};

CalibrationText CutText(const FactorizeOptions& options) {
  std::vector<std::string> documents;
  for (const auto& file : options.calibration) {
    for (std::string& document : ReadDocuments(file)) documents.push_back(std::move(document));
  }
  const auto tokenizer = Tokenizer::Load(options.model);
  const int64_t wanted = std::max<int64_t>(1, options.calibration_tokens / options.window);
  const Windows windows =
      model::CutWindows(*tokenizer, documents, wanted + options.held_back, options.window);
  const auto count = static_cast<int64_t>(windows.size());
  // A text too short for all gives one window in eight, at most, to measuring.
  const int64_t held = count > wanted ? count - wanted : count / 8;
  CalibrationText text;
  for (int64_t i = 0; i < count; ++i) {
    const bool held_here = (i + 1) * held / count > i * held / count;
    (held_here ? text.held_back : text.calibration).push_back(windows[i]);
  }
  return text;
}

LayerKeyWeights LoadKeyWeights(const Checkpoint& checkpoint, KeyLayout layout, int64_t layer) {
  LayerKeyWeights weights;
  weights.k = checkpoint.Load(Role::kK, layer);
  if (checkpoint.Has(Role::kKNorm, layer)) weights.k_norm = checkpoint.Load(Role::kKNorm, layer);
  if (layout == KeyLayout::kAbsorb) {
    weights.q = checkpoint.Load(Role::kQ, layer);
    if (checkpoint.Has(Role::kQBias, layer)) weights.q_bias = checkpoint.Load(Role::kQBias, layer);
  }
  return weights;
}

// Factors every layer: from the weights alone without windows, else from statistics that one
// streamed pass over them collects.
std::vector<LayerFactors> FactorLayers(const Checkpoint& checkpoint,
                                       const FactorRequest& request,
                                       const Windows& windows,
                                       const Svd& svd,
                                       Progress& progress) {
  const ModelConfig& config = checkpoint.config();
  std::vector<LayerFactors> factors;
  if (windows.empty()) {
    for (int64_t l = 0; l < config.num_layers; ++l) {
      factors.push_back(FactorLayer(
          config, request, LoadKeyWeights(checkpoint, request.layout, l), nullptr, svd));
      checkpoint.ReleaseLayer(l);
      progress.Report("factorize", l + 1, config.num_layers);
    }
    return factors;
  }
  const bool with_attention = request.objective == Objective::kInputAttentionQuery;
  KeyStatisticsCollector collector(config, request.num_groups, with_attention);
  model::StreamOptions stream;
  stream.taps.projections = true;
  stream.taps.probabilities = with_attention;
  stream.after_layer = [&](int64_t layer, const std::vector<torch::Tensor>&) {
    const KeyStatistics statistics = collector.Finish();
    factors.push_back(FactorLayer(
        config, request, LoadKeyWeights(checkpoint, request.layout, layer), &statistics, svd));
  };
  (void)model::StreamWindows(
      checkpoint,
      windows,
      stream,
      [&](int64_t, int64_t, const model::LayerTaps& taps, const model::LayerWeights& weights) {
        collector.Add(taps, weights);
      },
      progress,
      "factorize");
  return factors;
}

KeyFactors MakeKeys(const FactorRequest& request, const std::vector<LayerFactors>& factors) {
  KeyFactors keys;
  keys.layout = request.layout;
  keys.num_groups = request.num_groups;
  for (const LayerFactors& layer : factors) keys.ranks.push_back(layer.ranks);
  return keys;
}

double KeyBytesShare(const ModelConfig& config, const KeyFactors& keys) {
  int64_t width = 0;
  for (const auto& ranks : keys.ranks) width = std::accumulate(ranks.begin(), ranks.end(), width);
  return static_cast<double>(width) /
         static_cast<double>(config.num_layers * config.num_kv_heads * config.head_width);
}

std::string LayoutText(const LayoutChoice& choice) {
  return choice.layout == KeyLayout::kAbsorb ? "absorb"
                                             : "latent:" + std::to_string(choice.num_groups);
}

Json DescribeOptions(const FactorizeOptions& options) {
  Json json;
  json["rank"] = options.rank.is_share ? Json(options.rank.share) : Json(options.rank.dims);
  json["layout"] = options.layout;
  json["objective"] = ObjectiveName(options.objective);
  json["calib_tokens"] = options.calibration_tokens;
  json["window"] = options.window;
  json["held_back"] = options.held_back;
  json["svd"] = SvdBackendName(options.svd);
  json["calibration"] = Json::object();
  for (const auto& file : options.calibration) {
    json["calibration"][file.filename().string()] = Sha256File(file);
  }
  return json;
}

Json DescribeLayers(const std::vector<LayerFactors>& factors) {
  Json layers = Json::array();
  for (const LayerFactors& layer : factors) {
    double mean = 0.0;
    for (const double error : layer.logit_errors) mean += error;
    Json entry;
    entry["rank"] = std::accumulate(layer.ranks.begin(), layer.ranks.end(), int64_t{0});
    entry["logit_error"] = mean / static_cast<double>(layer.logit_errors.size());
    entry["group_ranks"] = layer.ranks;
    entry["head_logit_errors"] = layer.logit_errors;
    entry["spectra"] = layer.spectra;
    layers.push_back(std::move(entry));
  }
  return layers;
}

// Measures the written checkpoint against the source on the held-back windows.
void MeasureHeldBack(const Checkpoint& source,
                     const std::filesystem::path& thin_directory,
                     const Windows& windows,
                     Json& result,
                     Progress& progress) {
  if (windows.empty()) return;
  const Checkpoint thin = Checkpoint::Open(thin_directory);
  const model::ModelDistance distance = model::CompareModels(source, thin, windows, progress);
  result["kld_before_tuning"] = distance.kld;
  result["perplexity"] = distance.perplexity;
  result["perplexity_source"] = distance.reference_perplexity;
  result["held_back_tokens"] = distance.tokens;
}

void CheckOptions(const FactorizeOptions& options, Objective objective) {
  KVC_CHECK(options.window >= 2 && options.calibration_tokens >= options.window,
            kUsage,
            "--calib-tokens: expected at least one window of ",
            options.window,
            " tokens, got ",
            options.calibration_tokens);
  KVC_CHECK(!NeedsCalibration(objective) || !options.calibration.empty(),
            kUsage,
            "--calib: expected a text for the objective ",
            ObjectiveName(objective),
            ", got none; name a file or use --objective weight");
}

void CheckSource(const ModelConfig& config) {
  KVC_CHECK(!config.thin(),
            kBadInput,
            "config.json: expected full keys, got ",
            KeyLayoutName(config.keys.layout),
            " ones; factorize the model that they come from");
}

}  // namespace

LayoutChoice ResolveLayout(const std::string& name, const ModelConfig& config) {
  const std::string allowed = config.has_rope ? "latent:N, latent:heads" : "absorb";
  if (name == "auto") {
    return config.has_rope ? LayoutChoice{KeyLayout::kLatent, 1}
                           : LayoutChoice{KeyLayout::kAbsorb, config.num_kv_heads};
  }
  KVC_CHECK(name != "post-rope" && name != "rope-pairs",
            kUnsupported,
            "--layout: ",
            name,
            " is not in this version; ",
            FamilyName(config.family),
            " can have ",
            allowed);
  const bool latent = name.starts_with("latent:");
  KVC_CHECK(latent || name == "absorb",
            kUsage,
            "--layout: expected auto, absorb, latent:N or latent:heads, got \"",
            name,
            "\"");
  KVC_CHECK(latent == config.has_rope,
            kUsage,
            "--layout: expected ",
            allowed,
            " for ",
            FamilyName(config.family),
            ", got ",
            name,
            latent ? ": there is no rotation that keys must be rebuilt for"
                   : ": rotation stands between the projection and the dot product");
  if (!latent) return {KeyLayout::kAbsorb, config.num_kv_heads};
  const std::string groups = name.substr(7);
  if (groups == "heads") return {KeyLayout::kLatent, config.num_kv_heads};
  const int64_t count = ParseLength(groups, "--layout latent:N");
  KVC_CHECK(count >= 1 && config.num_kv_heads % count == 0,
            kUsage,
            "--layout latent:N: expected a divisor of the ",
            config.num_kv_heads,
            " kv heads, got ",
            count);
  return {KeyLayout::kLatent, count};
}

Json PlanFactorization(const FactorizeOptions& options) {
  const Checkpoint source = Checkpoint::Open(options.model);
  const ModelConfig& config = source.config();
  CheckSource(config);
  const LayoutChoice choice = ResolveLayout(options.layout, config);
  const Objective objective = ResolveObjective(options.objective, choice.layout);
  CheckOptions(options, objective);
  const int64_t width = config.num_kv_heads / choice.num_groups * config.head_width;
  const int64_t rank = RankFor(options.rank, width);
  KeyFactors keys{choice.layout, choice.num_groups, {}};
  keys.ranks.assign(config.num_layers, std::vector<int64_t>(choice.num_groups, rank));
  const int64_t original = 2 * config.num_layers * config.num_kv_heads * config.head_width;
  const int64_t saved =
      config.num_layers * (config.num_kv_heads * config.head_width - choice.num_groups * rank);
  Json plan;
  plan["layout"] = LayoutText(choice);
  plan["objective"] = ObjectiveName(objective);
  plan["group_rank"] = rank;
  plan["group_width"] = width;
  plan["key_bytes_share"] = KeyBytesShare(config, keys);
  plan["cache_elements_per_token"] = {{"full", original}, {"thin", original - saved}};
  // Multiply-adds to rebuild one cached token's keys: R x D for each head, every layer.
  plan["rebuild_macs_per_token"] =
      choice.layout == KeyLayout::kLatent
          ? config.num_layers * config.num_kv_heads * config.head_width * rank
          : 0;
  return plan;
}

Json FactorizeModel(const FactorizeOptions& options, Progress& progress) {
  const Checkpoint source = Checkpoint::Open(options.model);
  const ModelConfig& config = source.config();
  CheckSource(config);
  const LayoutChoice choice = ResolveLayout(options.layout, config);
  FactorRequest request;
  request.layout = choice.layout;
  request.num_groups = choice.num_groups;
  request.objective = ResolveObjective(options.objective, choice.layout);
  request.rank = options.rank;
  CheckOptions(options, request.objective);
  // Refuses a rank above the width before any work.
  (void)RankFor(request.rank, config.num_kv_heads / request.num_groups * config.head_width);
  CalibrationText text;
  if (!options.calibration.empty()) text = CutText(options);

  OutputDirectory output(options.output, options.force);
  const auto svd = Svd::Create(options.svd);
  const auto factors = FactorLayers(source, request, text.calibration, *svd, progress);
  const KeyFactors keys = MakeKeys(request, factors);
  WriteThinCheckpoint(source, keys, factors, output.path(), progress);

  Json result;
  result["layout"] = LayoutText(choice);
  result["objective"] = ObjectiveName(request.objective);
  result["key_bytes_share"] = KeyBytesShare(config, keys);
  result["calibration_windows"] = text.calibration.size();
  MeasureHeldBack(source, output.path(), text.held_back, result, progress);
  result["layers"] = DescribeLayers(factors);
  result["options"] = DescribeOptions(options);
  Json file = result;
  file["kvc"] = Version();
  WriteJsonFile(output.path() / "factorization.json", file);
  output.Commit();
  return result;
}

}  // namespace kvc::factorize
