#include "export/bundle/export_bundle.h"

#include <filesystem>
#include <optional>

#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/tokenizer/match.h"
#include "export/bundle/reference_logits.h"
#include "export/onnx/export_model.h"
#include "runtime/session.h"

namespace kvc::bundle {
namespace {

namespace fs = std::filesystem;

FileRecord RecordOf(const fs::path& path) {
  return {Sha256File(path), static_cast<int64_t>(fs::file_size(path))};
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
  KVC_CHECK(record.max_abs_error <= record.tolerance, kVerification,
            "model.onnx: expected logits within {} of the source model's, got a difference of {}; "
            "check that the weights are finite, or try --dtype f32 or --cache-dtype f32",
            record.tolerance, record.max_abs_error);
}

// Runs the bundle against the reference: error and tolerance of the token that decides.
void Verify(const fs::path& directory,
            const Manifest& manifest,
            const ReferenceLogits& reference,
            ThreadPool& pool,
            VerificationRecord& record) {
  const std::vector<double> errors = BundleErrors(directory, reference, pool);
  const std::vector<double> tolerances =
      VerificationTolerances(manifest.weights_dtype, manifest.cache, reference);
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
  Verify(directory, manifest, reference, pool, record);
  record.tokens = static_cast<int64_t>(reference.ids.size());
  record.done = true;
  CheckError(record);
  WriteJsonFile(directory / "manifest.json", ToJson(manifest));
}

// Narrow tiers keep the first elements of a latent, which must be those that matter most; elements
// of fewer than 32 bits would round what overlaps.
onnx_export::LatentBasis BasisOfLatents(const ExportPlan& plan) {
  const bool rewrite = plan.weights_dtype == DType::kF32 &&
                       plan.cache.spec.key_format == kRowsF32 &&
                       !plan.cache.spec.has_narrow_tiers();
  return rewrite ? onnx_export::LatentBasis::kUnitRows : onnx_export::LatentBasis::kStored;
}

// The types of the graph. A standard runtime keeps the past as numbers: in the cache's type where
// that is one, else in the weights'.
onnx_export::GraphTypes TypesOf(const ExportPlan& plan) {
  const RowFormat& format = plan.cache.spec.key_format;
  const bool plain = format.scales == RowScales::kNone;
  return {plan.weights_dtype,
          plain ? DTypeFromShortName(RowFormatName(format)) : plan.weights_dtype};
}

// The graph with its weights, and what stands beside it: tokenizer files and bases.
void WriteModel(const ExportPlan& plan,
                const Manifest& manifest,
                const fs::path& directory,
                Progress& progress) {
  onnx_export::WriteOnnxModel(plan.checkpoint, TypesOf(plan), directory, progress,
                              {{onnx_export::kCacheDigestKey, CacheDigest(manifest)}},
                              BasisOfLatents(plan));
  for (const fs::path& file : CompanionFiles(plan.checkpoint.directory())) {
    CopyFile(file, directory / file.filename());
  }
  if (plan.cache.spec.has_narrow_tiers() && plan.cache.spec.basis == TierBasis::kOffline) {
    WriteBases(directory / kBasesFile, *plan.cache.spec.bases);
  }
}

}  // namespace

ExportResult ExportBundle(const ExportPlan& plan,
                          const ExportOptions& options,
                          const Json& evaluation,
                          Progress& progress) {
  KVC_CHECK(!options.output.empty(), kUsage, "-o: expected an output directory, got none");
  OutputDirectory output(options.output, {options.model, options.profile}, options.force);
  return ExportBundle(plan, options, evaluation, output, progress);
}

ExportResult ExportBundle(const ExportPlan& plan,
                          const ExportOptions& options,
                          const Json& evaluation,
                          OutputDirectory& output,
                          Progress& progress) {
  for (const std::string& warning : plan.Warnings()) progress.Warn(warning);
  const auto other_tokenizer =
      WarnOfOtherTokenizer(plan.checkpoint.directory(), plan.checkpoint.config().vocab_size);
  if (other_tokenizer) progress.Warn(*other_tokenizer);
  Manifest manifest = MakeManifest(plan, options);
  manifest.evaluation = evaluation;
  WriteModel(plan, manifest, output.path(), progress);
  progress.Report("source logits", 0, 1);
  const std::optional<ReferenceLogits> reference =
      options.no_verify ? std::nullopt : SourceLogits(plan.checkpoint, options.threads);
  if (reference) {
    WriteReference(output.path(), *reference);
  } else {
    progress.Log(options.no_verify ? "not verified: --no-verify"
                                   : "not verified: this build has no LibTorch");
  }
  RecordSource(plan, manifest);
  RecordBundleFiles(output.path(), manifest);
  WriteJsonFile(output.path() / "manifest.json", ToJson(manifest));
  ExportResult result{options.output, {}};
  if (reference) {
    ThreadPool pool(options.threads);
    VerifyBundle(output.path(), *reference, pool, manifest);
    result.max_abs_error = manifest.verification.max_abs_error;
  }
  progress.Report("source logits", 1, 1);
  output.Commit();
  return result;
}

CheckResult CheckBundle(const fs::path& directory, ThreadPool& pool) {
  const Manifest manifest = ReadManifest(directory);
  CheckBundleIsWhole(manifest, directory);
  CheckBundleFiles(manifest, directory, true);
  CheckResult result{directory, std::ssize(manifest.files), {}};
  if (!manifest.verification.done) {
    // Without stored logits, loading still compares graph and manifest.
    (void)runtime::Bundle::Load(directory, {}, pool);
    return result;
  }
  VerificationRecord record = manifest.verification;
  Verify(directory, manifest, ReadReference(directory), pool, record);
  CheckError(record);
  result.verification = record;
  return result;
}

}  // namespace kvc::bundle
