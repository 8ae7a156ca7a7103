#include "export/bundle/reference_logits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/cache/manifest.h"
#include "core/io/safetensors.h"
#include "runtime/session.h"

namespace kvc::bundle {
namespace {

constexpr int64_t kVerificationTokens = 32;
constexpr uint64_t kVerificationSeed = 20;
constexpr char kNarrowKey[] = "narrow_windows";
constexpr double kFloatTolerance = 1e-3;
// The runtime's sums were seen to differ from the source's by 2 to 7 times
// ReferenceLogits::rounding.
constexpr double kRoundings = 16.0;
// Twice what was seen on SmolLM2 and on the golden models, relative to the largest logit.
constexpr double kF16Tolerance = 4e-3;
constexpr double kBF16Tolerance = 3e-2;
constexpr double kInt8Tolerance = 1e-1;

constexpr double kFloatUnit = 0x1p-24;

// u of the header, for rows `width` wide.
double UnitOf(const RowFormat& format, int64_t width) {
  if (format == kRowsF32) return kFloatUnit;
  if (format == kRowsF16) return 0x1p-11;
  if (format == kRowsBF16) return 0x1p-8;
  const double codes = std::exp2(static_cast<double>(ElementBits(format))) - 2.0;  // 254 of int8
  return std::sqrt(2.0 * std::log(2.0 * static_cast<double>(width))) / codes;
}

int64_t WidestRow(const CacheGeometry& cache) {
  int64_t widest = 1;
  for (const auto& groups : cache.layers) {
    for (const CacheGroup& group : groups) {
      widest = std::max({widest, group.key_width, group.value_width});
    }
  }
  return widest;
}

double RelativeTolerance(const RowFormat& format) {
  if (format == kRowsF32) return 0.0;
  if (format == kRowsF16) return kF16Tolerance;
  return format == kRowsBF16 ? kBF16Tolerance : kInt8Tolerance;
}

double LargestMagnitude(const std::vector<float>& values) {
  double largest = 0.0;
  for (const float value : values) largest = std::max(largest, std::abs(double{value}));
  return largest;
}

double LargestDifference(std::span<const float> actual, std::span<const float> expected) {
  double largest = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(double{actual[i]} - double{expected[i]});
    // A NaN compares false with everything and must not pass.
    if (!(difference <= largest)) largest = difference;
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
  }
  return largest;
}

}  // namespace

std::vector<int32_t> VerificationIds(const ModelConfig& config) {
  Rng rng(kVerificationSeed);
  int64_t count = std::min(kVerificationTokens, config.context_length);
  // The source runs them at once, the bundle some one by one: within the original context both turn
  // them alike.
  if (config.has_rope && DependsOnLength(config.rope)) {
    count = std::min(count, config.rope.original_context);
  }
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.NextBelow(config.vocab_size));
  return ids;
}

int64_t NarrowedWindows(const ModelConfig& config, int64_t tokens) {
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (config.window(layer).value_or(0) >= tokens) return std::max<int64_t>(1, tokens / 4);
  }
  return 0;
}

std::vector<double> VerificationTolerances(DType weights,
                                           const CacheGeometry& cache,
                                           const ReferenceLogits& reference) {
  std::vector<double> tolerances;
  const double relative =
      std::max({RelativeTolerance(RowFormatOf(weights)), RelativeTolerance(cache.key_format),
                RelativeTolerance(cache.value_format)});
  const double least = std::max(kFloatTolerance, relative * LargestMagnitude(reference.logits));
  const int64_t width = WidestRow(cache);
  const double unit =
      std::max({UnitOf(RowFormatOf(weights), width), UnitOf(cache.key_format, width),
                UnitOf(cache.value_format, width)});
  const double roundings = std::max(kRoundings, unit / kFloatUnit);
  for (const float rounding : reference.rounding) {
    tolerances.push_back(std::max(least, roundings * double{rounding}));
  }
  return tolerances;
}

void WriteReference(const std::filesystem::path& bundle, const ReferenceLogits& reference) {
  const auto tokens = static_cast<int64_t>(reference.ids.size());
  const auto vocab = static_cast<int64_t>(reference.logits.size()) / tokens;
  const std::vector<int64_t> ids(reference.ids.begin(), reference.ids.end());
  std::vector<TensorSpec> tensors = {{"ids", DType::kI64, {tokens}},
                                     {"logits", DType::kF32, {tokens, vocab}},
                                     {"rounding", DType::kF32, {tokens}}};
  const bool narrow = reference.narrow_windows > 0;
  if (narrow) tensors.push_back({kNarrowKey, DType::kI64, {1}});
  SafetensorsWriter writer(bundle / kReferenceFile, tensors);
  writer.Write("ids", std::as_bytes(std::span(ids)));
  writer.WriteFloats("logits", reference.logits);
  writer.WriteFloats("rounding", reference.rounding);
  if (narrow) writer.Write(kNarrowKey, std::as_bytes(std::span(&reference.narrow_windows, 1)));
  writer.Close();
}

ReferenceLogits ReadReference(const std::filesystem::path& bundle) {
  const SafetensorsReader reader = SafetensorsReader::OpenFile(bundle / kReferenceFile);
  const TensorRef& ids = reader.Get("ids");
  const TensorRef& logits = reader.Get("logits");
  KVC_CHECK(ids.dtype == DType::kI64 && ids.shape.size() == 1 && ids.shape[0] > 0 &&
                logits.dtype == DType::kF32 && logits.shape.size() == 2 &&
                logits.shape[0] == ids.shape[0],
            kBadInput,
            "{}: expected int64 ids [T] and float logits [T, V]; export the bundle again",
            kReferenceFile);
  std::vector<int64_t> wide(static_cast<size_t>(ids.shape[0]));
  std::copy(ids.bytes.begin(), ids.bytes.end(), std::as_writable_bytes(std::span(wide)).begin());
  ReferenceLogits reference;
  for (const int64_t id : wide) {
    KVC_CHECK(id >= 0 && id < logits.shape[1], kBadInput,
              "{}: expected ids below {}, got {}; export the bundle again", kReferenceFile,
              logits.shape[1], id);
    reference.ids.push_back(static_cast<int32_t>(id));
  }
  reference.logits.resize(static_cast<size_t>(logits.num_elements()));
  ConvertToFloat(DType::kF32, logits.bytes.data(), logits.num_elements(), reference.logits.data());
  reference.rounding.resize(reference.ids.size());
  if (reader.Contains("rounding")) {
    const TensorRef& rounding = reader.Get("rounding");
    KVC_CHECK(rounding.dtype == DType::kF32 && rounding.shape == ids.shape, kBadInput,
              "{}: rounding: expected float [T]; export the bundle again", kReferenceFile);
    ConvertToFloat(DType::kF32, rounding.bytes.data(), rounding.num_elements(),
                   reference.rounding.data());
  }
  if (reader.Contains(kNarrowKey)) {
    const TensorRef& narrow = reader.Get(kNarrowKey);
    KVC_CHECK(narrow.dtype == DType::kI64 && narrow.num_elements() == 1, kBadInput,
              "{}: {}: expected one int64; export the bundle again", kReferenceFile, kNarrowKey);
    std::copy(narrow.bytes.begin(), narrow.bytes.end(),
              std::as_writable_bytes(std::span(&reference.narrow_windows, 1)).begin());
    KVC_CHECK(reference.narrow_windows > 0, kBadInput,
              "{}: {}: expected 1 or more tokens, got {}; export the bundle again", kReferenceFile,
              kNarrowKey, reference.narrow_windows);
  }
  return reference;
}

std::vector<double> BundleErrors(const std::filesystem::path& bundle,
                                 const ReferenceLogits& reference,
                                 ThreadPool& pool) {
  runtime::LoadOptions load;
  load.narrow_windows = reference.narrow_windows;
  const auto loaded = runtime::Bundle::Load(bundle, load, pool);
  runtime::RuntimeOptions exact;
  exact.pool = &pool;
  exact.exact = true;
  const auto session = runtime::Session::Create(loaded, exact);
  runtime::SequenceOptions options;
  options.cache = FullCache(loaded->manifest().cache);
  const auto sequence = session->NewSequence(options);

  const auto tokens = static_cast<int64_t>(reference.ids.size());
  const int64_t vocab = loaded->manifest().model.vocab_size;
  KVC_CHECK(static_cast<int64_t>(reference.logits.size()) == tokens * vocab, kBadShape,
            "{}: expected {} logits for a token, got {}", kReferenceFile, vocab,
            reference.logits.size() / reference.ids.size());
  const int64_t prompt = std::max<int64_t>(1, tokens * 3 / 4);
  std::vector<float> logits(static_cast<size_t>(tokens * vocab));  // [T, V]
  session->Prefill(*sequence, std::span(reference.ids).first(static_cast<size_t>(prompt)),
                   MatrixF(logits.data(), prompt, vocab));
  for (int64_t t = prompt; t < tokens; ++t) {
    runtime::Sequence* const one = sequence.get();
    session->Decode(std::span(&one, 1), std::span(reference.ids).subspan(static_cast<size_t>(t), 1),
                    MatrixF(logits.data() + t * vocab, 1, vocab));
  }
  std::vector<double> errors;
  for (int64_t t = 0; t < tokens; ++t) {
    errors.push_back(
        LargestDifference(std::span(logits).subspan(static_cast<size_t>(t * vocab), vocab),
                          std::span(reference.logits).subspan(t * vocab, vocab)));
  }
  return errors;
}

size_t DecidingToken(const std::vector<double>& errors, const std::vector<double>& tolerances) {
  size_t largest = 0;
  size_t worst = 0;
  for (size_t t = 1; t < errors.size(); ++t) {
    if (errors[t] > errors[largest]) largest = t;
    if (errors[t] / tolerances[t] > errors[worst] / tolerances[worst]) worst = t;
  }
  return errors[worst] > tolerances[worst] ? worst : largest;
}

}  // namespace kvc::bundle
