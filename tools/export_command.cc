#include "tools/export_command.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "core/checkpoint.h"
#include "core/files.h"
#include "core/tier_list.h"
#include "core/tokenizer_match.h"
#include "core/version.h"
#include "export/export_model.h"
#include "runtime/session.h"
#include "tools/budget_plan.h"
#include "tools/export_reference.h"

namespace kvc::tools {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDefaultReferenceLength = 4096;

// Everything that is settled before a byte is written.
struct ExportPlan {
  Checkpoint checkpoint;
  DType dtype = DType::kF32;
  Budget budget = {};
  std::optional<ProfileData> profile = {};
  std::string profile_sha256 = {};
  BudgetPlan cache = {};
};

FileRecord RecordOf(const fs::path& path) {
  return {Sha256File(path), static_cast<int64_t>(fs::file_size(path))};
}

Method ChooseMethod(const ExportOptions& options, const Budget& budget) {
  if (!options.method.empty()) return MethodFromName(options.method);
  if (budget.unit == Budget::Unit::kShare && budget.share >= 1.0) return Method::kFull;
  return options.profile.empty() ? Method::kUniform : Method::kLuKv;
}

int64_t ReferenceLength(const ExportOptions& options,
                        const ModelConfig& config,
                        const std::optional<ProfileData>& profile) {
  if (!options.reference_length.empty()) {
    const int64_t length = ParseLength(options.reference_length, "--reference-length");
    KVC_CHECK(length >= 1 && length <= config.context_length,
              kUsage,
              "--reference-length: expected 1 to the model's ",
              config.context_length,
              " tokens, got ",
              length);
    return length;
  }
  const int64_t wanted = profile ? profile->context : kDefaultReferenceLength;
  return std::min(wanted, config.context_length);
}

ProfileData LoadProfile(const ExportOptions& options) {
  ProfileData profile = ReadProfile(options.profile);
  const std::string digest = ModelDigest(options.model);
  KVC_CHECK(profile.model_sha256 == digest,
            kBadInput,
            options.profile,
            ": expected a profile of ",
            options.model,
            " (sha256 ",
            digest,
            "), got one of another checkpoint (",
            profile.model_sha256,
            "); run kvc-profile on this model");
  return profile;
}

ExportPlan MakePlan(const ExportOptions& options) {
  KVC_CHECK(!options.model.empty(), kUsage, "MODEL: expected a model directory, got none");
  ExportPlan plan{.checkpoint = Checkpoint::Open(options.model)};
  const ModelConfig& config = plan.checkpoint.config();
  plan.dtype = DTypeFromShortName(options.dtype);
  plan.budget = ParseBudget(options.budget, "--budget");
  if (!options.profile.empty()) {
    plan.profile = LoadProfile(options);
    plan.profile_sha256 = Sha256File(fs::path(options.profile) / "profile.safetensors");
  }
  const CacheSpec geometry = onnx_export::MakeCacheSpec(config, plan.dtype);
  PlanRequest request;
  request.budget = plan.budget;
  request.method = ChooseMethod(options, plan.budget);
  request.scorer = ParseScorer(options.scorer, "--scorer");
  request.loss = CurveLossFromName(options.loss);
  request.sinks = options.sinks;
  request.window = options.window;
  request.reference_length = ReferenceLength(options, config, plan.profile);
  request.profile = plan.profile ? &*plan.profile : nullptr;
  if (!options.tiers.empty()) request.tiers = ParseTiers(options.tiers, "--tiers");
  request.basis = TierBasisFromName(options.basis);
  if (plan.profile && !plan.profile->bases.empty()) {
    request.bases = std::make_shared<const std::vector<LayerBases>>(plan.profile->bases);
  }
  plan.cache = MakeBudgetPlan(geometry, request);
  return plan;
}

Json OptionsToJson(const ExportOptions& options, const CommonOptions& common) {
  Json json;
  json["budget"] = options.budget;
  json["profile"] = fs::path(options.profile).lexically_normal().filename().string();
  json["method"] = options.method;
  json["scorer"] = options.scorer;
  json["loss"] = options.loss;
  json["tiers"] = options.tiers;
  json["basis"] = options.basis;
  json["dtype"] = options.dtype;
  json["reference_length"] = options.reference_length;
  json["sinks"] = options.sinks;
  json["window"] = options.window;
  json["verify"] = !options.no_verify;
  json["seed"] = common.seed;
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

Manifest MakeManifest(const ExportPlan& plan,
                      const ExportOptions& options,
                      const CommonOptions& common) {
  const ModelConfig& config = plan.checkpoint.config();
  Manifest manifest;
  manifest.tool_version = Version();
  manifest.options = OptionsToJson(options, common);
  manifest.source_name = fs::canonical(options.model).filename().string();
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

std::string CacheDigest(const Manifest& manifest) {
  const std::string text = ToJson(manifest)["cache"].dump();
  return Sha256(std::as_bytes(std::span(text)));
}

void RecordSource(const ExportPlan& plan, Manifest& manifest) {
  const fs::path directory = plan.checkpoint.directory();
  for (const fs::path& path : ModelFiles(directory)) {
    manifest.source_files[path.filename().string()] = RecordOf(path);
  }
}

void RecordBundleFiles(const fs::path& directory, Manifest& manifest) {
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name != "manifest.json") manifest.files[name] = RecordOf(entry.path());
  }
}

void CheckError(const VerificationRecord& record) {
  KVC_CHECK(record.max_abs_error <= record.tolerance,
            kVerification,
            "model.onnx: expected logits within ",
            record.tolerance,
            " of the source model's, got a difference of ",
            record.max_abs_error,
            "; check that the weights are finite, or try --dtype f32");
}

// Runs the bundle against the reference and writes the result into its manifest.
void VerifyBundle(const fs::path& directory,
                  const ReferenceLogits& reference,
                  ThreadPool& pool,
                  Manifest& manifest) {
  VerificationRecord& record = manifest.verification;
  record.max_abs_error = BundleError(directory, reference, pool);
  record.tolerance = VerificationTolerance(manifest.cache.dtype, reference);
  record.tokens = static_cast<int64_t>(reference.ids.size());
  record.done = true;
  CheckError(record);
  WriteJsonFile(directory / "manifest.json", ToJson(manifest));
}

Json PlanToJson(const ExportPlan& plan) {
  const BudgetPlan& cache = plan.cache;
  Json json;
  json["method"] = MethodName(cache.spec.method);
  json["scorer"] = ToString(cache.spec.scorer);
  json["dtype"] = ShortName(cache.spec.dtype);
  json["budget"] = ToString(plan.budget);
  json["reference_length"] = cache.reference_length;
  json["budget_bytes_per_token_share"] =
      static_cast<double>(cache.bytes.allocated) / static_cast<double>(cache.bytes.full);
  json["cache"] = {{"full_bytes", cache.bytes.full},
                   {"logical_bytes", cache.bytes.logical},
                   {"allocated_bytes", cache.bytes.allocated}};
  Json heads = Json::array();
  for (const auto& layer : HeadShares(cache)) {
    Json row = Json::array();
    for (const HeadShare& head : layer) {
      row.push_back({{"tokens", head.tokens}, {"bytes", head.bytes}});
    }
    heads.push_back(std::move(row));
  }
  json["heads"] = std::move(heads);
  json["solver"] = {{"objective", cache.solver.objective},
                    {"bound", cache.solver.bound},
                    {"gap", cache.solver.gap}};
  json["verified_max_abs_error"] = nullptr;
  return json;
}

Json ExportBundle(const ExportPlan& plan,
                  const ExportOptions& options,
                  const CommonOptions& common) {
  KVC_CHECK(!options.output.empty(), kUsage, "-o: expected an output directory, got none");
  const int threads = CheckCommonOptions(common);
  CheckTokenizerMatches(plan.checkpoint.directory(), plan.checkpoint.config().vocab_size);
  const std::unique_ptr<Progress> progress = MakeProgress(common);
  OutputDirectory output(options.output, options.force);
  Manifest manifest = MakeManifest(plan, options, common);
  onnx_export::WriteOnnxModel(plan.checkpoint,
                              plan.dtype,
                              output.path(),
                              *progress,
                              {{onnx_export::kCacheDigestKey, CacheDigest(manifest)}});
  for (const fs::path& file : CompanionFiles(plan.checkpoint.directory())) {
    CopyFile(file, output.path() / file.filename());
  }
  if (plan.cache.spec.mixed() && plan.cache.spec.basis == TierBasis::kOffline) {
    WriteBases(output.path() / kBasesFile, *plan.cache.spec.bases);
  }
  progress->Report("source logits", 0, 1);
  const std::optional<ReferenceLogits> reference =
      options.no_verify ? std::nullopt : SourceLogits(plan.checkpoint, threads);
  if (reference) {
    WriteReference(output.path(), *reference);
  } else {
    progress->Log(options.no_verify ? "not verified: --no-verify"
                                    : "not verified: this build has no LibTorch");
  }
  RecordSource(plan, manifest);
  RecordBundleFiles(output.path(), manifest);
  WriteJsonFile(output.path() / "manifest.json", ToJson(manifest));
  if (reference) {
    ThreadPool pool(threads);
    VerifyBundle(output.path(), *reference, pool, manifest);
  }
  progress->Report("source logits", 1, 1);
  output.Commit();
  Json result = PlanToJson(plan);
  result["bundle"] = options.output;
  if (reference) result["verified_max_abs_error"] = manifest.verification.max_abs_error;
  return result;
}

Json CheckBundle(const std::string& directory, const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common));
  const Manifest manifest = ReadManifest(directory);
  CheckBundleFiles(manifest, directory, true);
  Json result = {{"bundle", directory}, {"files", manifest.files.size()}};
  if (!manifest.verification.done) {
    // Without stored logits, loading still compares graph and manifest.
    (void)runtime::Bundle::Load(directory, {}, pool);
    result["verified_max_abs_error"] = nullptr;
    return result;
  }
  VerificationRecord record = manifest.verification;
  record.max_abs_error = BundleError(directory, ReadReference(directory), pool);
  CheckError(record);
  result["verified_max_abs_error"] = record.max_abs_error;
  result["tolerance"] = record.tolerance;
  return result;
}

}  // namespace

void AddExportOptions(CLI::App& app, ExportOptions& options) {
  app.add_option("model", options.model, "Checkpoint directory, thin or not");
  app.add_option("-o,--output", options.output, "Bundle directory to write");
  app.add_option("--verify", options.verify, "Check a bundle: hashes, structure, stored logits");
  app.add_option("--budget", options.budget, "Cache budget: 25%, 512tok or 1GiB@128k")
      ->capture_default_str();
  app.add_option("--profile",
                 options.profile,
                 "Profile directory (headkv, lukv, lukv-mixed and offline bases need it)");
  app.add_option("--method",
                 options.method,
                 "full, streaming, uniform, pyramid, ada, ada-model, headkv, lukv or lukv-mixed; "
                 "default: full at 100%, "
                 "lukv with a profile, else uniform");
  app.add_option(
         "--scorer",
         options.scorer,
         "What ranks cached tokens: snapkv, expected-attention, keydiff, knorm, streaming or "
         "output-error; options as in output-error:pool=15,keydiff=0.3")
      ->capture_default_str();
  app.add_option("--loss",
                 options.loss,
                 "What lukv keeps small: importance, or output-error, which is comparable over the "
                 "whole model")
      ->capture_default_str();
  app.add_option("--tiers",
                 options.tiers,
                 "Shares of its width that a token may keep: 0,1/8,1/4,1, or "
                 "key=0,1/4,1;value=0,1/2,1; default: 0,1, with lukv-mixed 0,1/8,1/4,1");
  app.add_option("--basis",
                 options.basis,
                 "Coordinates of narrow tiers: offline (the profile's) or prompt (found in each "
                 "prompt and held by the sequence)")
      ->capture_default_str();
  app.add_option("--sinks", options.sinks, "First tokens that are never dropped")
      ->capture_default_str();
  app.add_option("--window", options.window, "Newest tokens that are never dropped")
      ->capture_default_str();
  app.add_option("--dtype", options.dtype, "f32, f16 or bf16: weights and cache")
      ->capture_default_str();
  app.add_option("--reference-length",
                 options.reference_length,
                 "Tokens at which the budget is met; default: the profile's context, or 4k");
  app.add_flag("--no-verify", options.no_verify, "Do not run the bundle against its source");
  app.add_flag("--force", options.force, "Replace an existing output");
}

Json RunExport(const ExportOptions& options, const CommonOptions& common) {
  if (!options.verify.empty()) {
    KVC_CHECK(options.model.empty() && options.output.empty(),
              kUsage,
              "--verify: expected no model and no output beside it");
    return CheckBundle(options.verify, common);
  }
  const ExportPlan plan = MakePlan(options);
  if (common.dry_run) {
    Json result = PlanToJson(plan);
    result["dry_run"] = true;
    return result;
  }
  return ExportBundle(plan, options, common);
}

void PrintExport(const Json& result) {
  const Json& error = result["verified_max_abs_error"];
  const std::string verified =
      error.is_number() ? "max abs error " + error.dump() : std::string("not verified");
  if (!result.contains("method")) {
    std::printf("%s: %s files as recorded, %s\n",
                result["bundle"].get<std::string>().c_str(),
                result["files"].dump().c_str(),
                verified.c_str());
    return;
  }
  const Json& cache = result["cache"];
  std::printf("method %s, scorer %s, dtype %s\n",
              result["method"].get<std::string>().c_str(),
              result["scorer"].get<std::string>().c_str(),
              result["dtype"].get<std::string>().c_str());
  std::printf("cache of %lld tokens: %s of %s (%.2f %%)\n",
              static_cast<long long>(result["reference_length"].get<int64_t>()),
              FormatBytes(cache["allocated_bytes"].get<int64_t>()).c_str(),
              FormatBytes(cache["full_bytes"].get<int64_t>()).c_str(),
              100.0 * result["budget_bytes_per_token_share"].get<double>());
  std::printf("solver: objective %g, bound %g, gap %g\n",
              result["solver"]["objective"].get<double>(),
              result["solver"]["bound"].get<double>(),
              result["solver"]["gap"].get<double>());
  if (result.contains("dry_run")) {
    std::printf("dry run: nothing written\n");
  } else {
    std::printf("%s: %s\n", result["bundle"].get<std::string>().c_str(), verified.c_str());
  }
}

}  // namespace kvc::tools
