#include "tools/export_command.h"

#include <cstdio>
#include <memory>
#include <optional>

#include "core/files.h"
#include "core/tokenizer_match.h"
#include "export/export_model.h"
#include "runtime/session.h"
#include "tools/export_reference.h"

namespace kvc::tools {
namespace {

namespace fs = std::filesystem;

FileRecord RecordOf(const fs::path& path) {
  return {Sha256File(path), static_cast<int64_t>(fs::file_size(path))};
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

// Runs the bundle against the reference: error and tolerance of the token that decides.
void Verify(const fs::path& directory,
            DType dtype,
            const ReferenceLogits& reference,
            ThreadPool& pool,
            VerificationRecord& record) {
  const std::vector<double> errors = BundleErrors(directory, reference, pool);
  const std::vector<double> tolerances = VerificationTolerances(dtype, reference);
  const size_t token = DecidingToken(errors, tolerances);
  record.max_abs_error = errors[token];
  record.tolerance = tolerances[token];
}

// Writes the verification's result into the bundle's manifest.
void VerifyBundle(const fs::path& directory,
                  const ReferenceLogits& reference,
                  ThreadPool& pool,
                  Manifest& manifest) {
  VerificationRecord& record = manifest.verification;
  Verify(directory, manifest.cache.dtype, reference, pool, record);
  record.tokens = static_cast<int64_t>(reference.ids.size());
  record.done = true;
  CheckError(record);
  WriteJsonFile(directory / "manifest.json", ToJson(manifest));
}

// Narrow tiers keep the first elements of a latent, which must be those that matter most; a 16-bit
// cache would round elements that overlap.
onnx_export::LatentBasis BasisOfLatents(const ExportPlan& plan) {
  const bool rewrite = plan.dtype == DType::kF32 && !plan.cache.spec.mixed();
  return rewrite ? onnx_export::LatentBasis::kUnitRows : onnx_export::LatentBasis::kStored;
}

Json ExportBundle(const ExportPlan& plan,
                  const ExportOptions& options,
                  const CommonOptions& common,
                  const Json& evaluation) {
  KVC_CHECK(!options.output.empty(), kUsage, "-o: expected an output directory, got none");
  const int threads = CheckCommonOptions(common);
  CheckTokenizerMatches(plan.checkpoint.directory(), plan.checkpoint.config().vocab_size);
  const std::unique_ptr<Progress> progress = MakeProgress(common);
  OutputDirectory output(options.output, options.force);
  Manifest manifest = MakeManifest(plan, options, common);
  manifest.evaluation = evaluation;
  onnx_export::WriteOnnxModel(plan.checkpoint,
                              plan.dtype,
                              output.path(),
                              *progress,
                              {{onnx_export::kCacheDigestKey, CacheDigest(manifest)}},
                              BasisOfLatents(plan));
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

// --method auto: tries compositions, then exports the best with the table of what was tried.
Json ExportBest(const ExportOptions& options, const CommonOptions& common) {
  KVC_CHECK(!options.model.empty(), kUsage, "MODEL: expected a model directory, got none");
  KVC_CHECK(!options.output.empty(), kUsage, "-o: expected an output directory, got none");
  KVC_CHECK(
      !common.dry_run,
      kUsage,
      "--dry-run: expected a method that is known beforehand, got auto; use another --method");
  AutoRequest request;
  request.options = options.automatic;
  request.candidates = {{options.model, options.profile}};
  for (const std::string& text : options.automatic.candidates) {
    request.candidates.push_back(ParseCandidate(text));
  }
  request.budget = options.budget;
  request.sinks = options.sinks;
  request.window = options.window;
  request.seed = common.seed;
  request.scratch = options.output + ".auto";
  request.export_full = [&](const AutoCandidate& candidate, const std::string& directory) {
    ExportOptions full = options;
    full.model = candidate.model;
    full.profile.clear();
    full.output = directory;
    full.budget = "100%";
    full.method = MethodName(Method::kFull);
    full.no_verify = true;
    (void)ExportBundle(MakePlan(full), full, common, nullptr);
  };
  ThreadPool pool(CheckCommonOptions(common));
  const std::unique_ptr<Progress> progress = MakeProgress(common);
  const AutoChoice choice = ChooseComposition(request, pool, *progress);
  ExportOptions best = options;
  best.model = choice.candidate.model;
  best.profile = choice.candidate.profile;
  best.policy = choice.policy;
  Json result = ExportBundle(MakePlan(best), best, common, {{kAutoMethod, choice.table}});
  result["chosen"] = choice.table["chosen"];
  result["tried"] = choice.table["lines"];
  result["screened"] = choice.table["screened"];
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
  Verify(directory, manifest.cache.dtype, ReadReference(directory), pool, record);
  CheckError(record);
  result["verified_max_abs_error"] = record.max_abs_error;
  result["tolerance"] = record.tolerance;
  return result;
}

void AddAutoOptions(CLI::App& app, AutoOptions& options) {
  const std::string group = "With --method auto";
  app.add_option("--candidate",
                 options.candidates,
                 "CHECKPOINT[,PROFILE] to try beside MODEL, as one with thin keys; repeatable")
      ->group(group);
  app.add_option("--policy",
                 options.policies,
                 "METHOD[/SCORER[/LOSS]][@TIERS] to try on every checkpoint; repeatable; default: "
                 "what the profile allows")
      ->group(group);
  app.add_option("--text", options.text, "Held-back text to judge by; repeatable")->group(group);
  app.add_option("--haystack", options.haystack, "Text that hides needles; default: none are asked")
      ->group(group);
  app.add_option("--context", options.context, "Tokens of a prompt and of a needle prompt")
      ->capture_default_str()
      ->group(group);
  app.add_option("--decode", options.decode, "Tokens predicted after a prompt")
      ->capture_default_str()
      ->group(group);
  app.add_option("--samples", options.samples, "Windows of text")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--needles", options.needles, "Needles at each of five depths")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--least-needles",
                 options.least_needles,
                 "Share of the full cache's needles that a choice must find")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
}

void PrintLines(const Json& lines, const Json& chosen) {
  for (const Json& line : lines) {
    std::printf("%-52s KLD %.4f  perplexity %.3f",
                line["name"].get<std::string>().c_str(),
                line["kld_mean"].get<double>(),
                line["perplexity"].get<double>());
    if (line.contains("needle_accuracy")) {
      std::printf("  needles %.0f %%", 100.0 * line["needle_accuracy"].get<double>());
    }
    std::printf("%s\n", line["name"] == chosen ? "  <- chosen" : "");
  }
}

}  // namespace

void AddExportOptions(CLI::App& app, ExportOptions& options) {
  AddAutoOptions(app, options.automatic);
  app.add_option("model", options.model, "Checkpoint directory, thin or not");
  app.add_option("-o,--out,--output", options.output, "Bundle directory to write");
  app.add_option("--verify", options.verify, "Check a bundle: hashes, structure, stored logits");
  app.add_option("--budget", options.budget, "Cache budget: 25%, 512tok or 1GiB@128k")
      ->capture_default_str();
  app.add_option("--profile",
                 options.profile,
                 "Profile directory (headkv, lukv, lukv-mixed and offline bases need it)");
  app.add_option(
      "--method",
      options.method,
      "full, streaming, uniform, pyramid, ada, ada-model, headkv, lukv, lukv-mixed, or auto: "
      "the best of what is tried on held-back --text; default: full at 100%, lukv with "
      "a profile, else uniform");
  app.add_option(
         "--scorer",
         options.scorer,
         "What ranks cached tokens: snapkv, expected-attention, keydiff, knorm, streaming or "
         "output-error; options as in output-error:prompt=1024")
      ->capture_default_str();
  app.add_option("--loss",
                 options.loss,
                 "What lukv and lukv-mixed keep small: importance, or output-error, which is "
                 "comparable over the whole model")
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
  if (options.method == kAutoMethod) return ExportBest(options, common);
  const ExportPlan plan = MakePlan(options);
  if (common.dry_run) {
    Json result = PlanToJson(plan);
    result["dry_run"] = true;
    return result;
  }
  return ExportBundle(plan, options, common, nullptr);
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
  if (result.contains("chosen")) {
    if (!result["screened"].empty()) std::printf("left out after a third of the windows:\n");
    PrintLines(result["screened"], nullptr);
    if (!result["screened"].empty()) std::printf("on all windows:\n");
    PrintLines(result["tried"], result["chosen"]);
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
