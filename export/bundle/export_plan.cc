#include "export/bundle/export_plan.h"

#include <algorithm>
#include <filesystem>

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "export/onnx/export_model.h"

namespace kvc::bundle {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDefaultReferenceLength = 4096;

ScorerSpec ScorerOf(const ExportOptions& options, const std::optional<ProfileData>& profile) {
  if (options.scorer) return *options.scorer;
  if (!profile || profile->curves.empty()) return {};
  const auto listed = profile->options.find("scorers");
  if (listed != profile->options.end() && listed->is_array() && !listed->empty()) {
    const ScorerSpec first = ParseScorer(listed->front().get<std::string>(), "profile");
    if (profile->curves.contains(first)) return first;
  }
  return profile->curves.begin()->first;
}

// Whether the profile's own tiers, in few bits, are what the options leave open.
bool TakesProfileTiers(const ExportOptions& options,
                       const ProfileData& profile,
                       const ScorerSpec& scorer) {
  return InFewBits(profile.tiers) && profile.mixed_curves.contains(scorer) &&
         !profile.bases.empty() && options.basis == TierBasis::kOffline &&
         (options.tiers.empty() || options.tiers == profile.tiers);
}

Method MethodOf(const ExportOptions& options,
                const std::optional<ProfileData>& profile,
                const ScorerSpec& scorer) {
  if (options.method) return *options.method;
  const Budget& budget = options.budget;
  if (budget.unit == Budget::Unit::kShare && budget.share >= 1.0) return Method::kFull;
  if (!profile) return Method::kUniform;
  return TakesProfileTiers(options, *profile, scorer) ? Method::kLuKvMixed : Method::kLuKv;
}

int64_t ReferenceLength(const ExportOptions& options,
                        const ModelConfig& config,
                        const std::optional<ProfileData>& profile) {
  if (options.reference_length) {
    const int64_t length = *options.reference_length;
    KVC_CHECK(length >= 1 && length <= config.context_length, kUsage,
              "--reference-length: expected 1 to the model's {} tokens, got {}",
              config.context_length, length);
    return length;
  }
  const int64_t wanted = profile ? profile->context : kDefaultReferenceLength;
  return std::min(wanted, config.context_length);
}

ProfileData LoadProfile(const ExportOptions& options) {
  ProfileData profile = ReadProfile(options.profile);
  const std::string digest = ModelDigest(options.model);
  KVC_CHECK(profile.model_sha256 == digest, kBadInput,
            "{}: expected a profile of {} (sha256 {}), got one of another checkpoint ({}); run "
            "kvc-profile on this model",
            options.profile.string(), options.model.string(), digest, profile.model_sha256);
  return profile;
}

// Every option and the seed, for the manifest.
Json RecordOf(const ExportOptions& options, int64_t window) {
  const OptionTexts& texts = options.texts;
  Json json;
  json["budget"] = texts.budget;
  json["profile"] = options.profile.lexically_normal().filename().string();
  json["method"] = texts.method;
  json["scorer"] = texts.scorer;
  json["loss"] = texts.loss;
  json["policy"] = texts.policy;
  json["tiers"] = texts.tiers;
  json["basis"] = texts.basis;
  json["recent"] = texts.recent;
  json["dtype"] = texts.dtype;
  json["cache_dtype"] = texts.cache_dtype;
  json["reference_length"] = texts.reference_length;
  json["sinks"] = options.sinks;
  json["window"] = window;
  json["verify"] = !options.no_verify;
  json["seed"] = options.seed;
  return json;
}

// Lengths at which the manifest says what a sequence takes: powers of two up to the context, and
// the reference length.
std::vector<int64_t> ExpectedLengths(int64_t reference_length, int64_t context_length) {
  std::vector<int64_t> lengths = {reference_length};
  for (int64_t length = 512; length <= context_length; length *= 2) lengths.push_back(length);
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

}  // namespace

void ExportOptions::SetPolicy(const std::string& name, const budget::Policy& policy) {
  texts.policy = name;
  method = policy.method;
  scorer = policy.scorer;
  loss = policy.loss;
  tiers = policy.tiers;
  basis = policy.basis;
  recent_format = policy.recent_format;
}

std::vector<std::string> ExportPlan::Warnings() const {
  std::vector<std::string> warnings = checkpoint.warnings();
  warnings.insert(warnings.end(), cache.warnings.begin(), cache.warnings.end());
  return warnings;
}

double ExportPlan::BudgetShare() const {
  return static_cast<double>(cache.bytes.allocated) / static_cast<double>(cache.bytes.full);
}

ExportPlan PlanExport(const ExportOptions& options) {
  KVC_CHECK(!options.model.empty(), kUsage, "MODEL: expected a model directory, got none");
  ExportPlan plan{.checkpoint = Checkpoint::Open(options.model)};
  const ModelConfig& config = plan.checkpoint.config();
  const DType own = plan.checkpoint.OwnType();
  plan.weights_dtype = options.weights_dtype.value_or(own);
  plan.budget = options.budget;
  if (!options.profile.empty()) {
    plan.profile = LoadProfile(options);
    plan.profile_sha256 = Sha256File(options.profile / "profile.safetensors");
  }
  const RowFormat format = options.cache_format.value_or(RowFormatOf(plan.weights_dtype));
  const CacheGeometry geometry = onnx_export::MakeCacheGeometry(config, format, own);
  budget::PlanRequest request;
  request.budget = plan.budget;
  const ScorerSpec scorer = ScorerOf(options, plan.profile);
  request.policy = {MethodOf(options, plan.profile, scorer),
                    scorer,
                    options.loss,
                    options.tiers,
                    options.basis,
                    options.recent_format};
  request.sinks = options.sinks;
  request.window = options.window;
  request.reference_length = ReferenceLength(options, config, plan.profile);
  request.profile = plan.profile ? &*plan.profile : nullptr;
  request.bases = budget::SharedBases(request.profile);
  plan.cache = budget::MakeBudgetPlan(geometry, request);
  return plan;
}

Manifest MakeManifest(const ExportPlan& plan, const ExportOptions& options) {
  const ModelConfig& config = plan.checkpoint.config();
  Manifest manifest;
  manifest.tool_version = Version();
  manifest.options = RecordOf(options, plan.cache.spec.window);
  manifest.source_name = fs::canonical(options.model).filename().string();
  manifest.weights_dtype = plan.weights_dtype;
  manifest.model = config;
  manifest.cache = plan.cache.spec;
  manifest.budget = plan.budget;
  manifest.profile_sha256 = plan.profile_sha256;
  if (plan.profile && !plan.profile->importance.empty()) {
    Json values = Json::array();  // [L][G]
    const auto heads = static_cast<size_t>(plan.profile->num_kv_heads);
    for (size_t first = 0; first < plan.profile->importance.size(); first += heads) {
      const auto begin = plan.profile->importance.begin() + static_cast<int64_t>(first);
      values.push_back(std::vector<float>(begin, begin + plan.profile->num_kv_heads));
    }
    manifest.importance = {{"method", plan.profile->importance_method},
                           {"tests", plan.profile->importance_tests},
                           {"values", values}};
  }
  manifest.solver = plan.cache.solver;
  manifest.reference_length = plan.cache.reference_length;
  for (const int64_t length : ExpectedLengths(plan.cache.reference_length, config.context_length)) {
    manifest.expected_bytes.emplace_back(length, PredictBytes(manifest.cache, length));
  }
  return manifest;
}

}  // namespace kvc::bundle
