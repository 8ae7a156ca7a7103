#include "tests/runtime/test_bundles.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/base/progress.h"
#include "core/cache/manifest.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "export/onnx/export_model.h"
#include "tests/support/paths.h"

namespace kvc::testing {

std::filesystem::path GoldenModel(const std::string& name) {
  return kvc::testing::SourceRoot() / "tests" / "golden" / "models" / name;
}

void WriteBundle(const std::filesystem::path& model,
                 const std::filesystem::path& directory,
                 DType dtype) {
  const Checkpoint checkpoint = Checkpoint::Open(model);
  NoProgress progress;
  onnx_export::WriteOnnxModel(checkpoint, {dtype, dtype}, directory, progress);
  Manifest manifest;
  manifest.tool_version = "test";
  manifest.options = Json::object();
  manifest.source_name = model.filename().string();
  manifest.model = checkpoint.config();
  manifest.weights_dtype = dtype;
  manifest.cache = {
      onnx_export::MakeCacheGeometry(checkpoint.config(), RowFormatOf(dtype), dtype), {}, {}};
  for (const char* name : {"model.onnx", "model.onnx.data"}) {
    FileRecord& record = manifest.files[name];
    record.bytes = static_cast<int64_t>(std::filesystem::file_size(directory / name));
    record.sha256 = Sha256File(directory / name);
  }
  WriteJsonFile(directory / "manifest.json", ToJson(manifest));
}

CacheSpec Policy(
    const CacheSpec& geometry, Method method, ScorerKind scorer, double budget, bool by_share) {
  CacheSpec spec = geometry;
  spec.method = method;
  spec.scorer = scorer;
  spec.sinks = 2;
  spec.window = 4;
  spec.margin = 3;
  spec.query_ring = 4;
  spec.tiers = {{1.0, 1.0}};
  spec.by_share = by_share;
  spec.budget.clear();
  for (const auto& groups : spec.layers) spec.budget.emplace_back(groups.size(), budget);
  return spec;
}

GoldenLogits ReadGolden(const std::filesystem::path& file) {
  const SafetensorsReader reader = SafetensorsReader::OpenFile(file);
  GoldenLogits golden;
  const TensorRef& ids = reader.Get("ids");
  std::vector<int64_t> values(static_cast<size_t>(ids.num_elements()));
  std::memcpy(values.data(), ids.bytes.data(), ids.bytes.size());
  for (const int64_t id : values) golden.ids.push_back(static_cast<int32_t>(id));
  const TensorRef& logits = reader.Get("logits");
  golden.logits.resize(static_cast<size_t>(logits.num_elements()));
  ConvertToFloat(logits.dtype, logits.bytes.data(), logits.num_elements(), golden.logits.data());
  return golden;
}

std::vector<float> PrefillAll(runtime::Session& session,
                              runtime::Sequence& sequence,
                              const std::vector<int32_t>& ids) {
  const int64_t vocabulary = session.bundle().manifest().model.vocab_size;
  std::vector<float> logits(ids.size() * static_cast<size_t>(vocabulary));
  session.Prefill(sequence, ids,
                  MatrixF(logits.data(), static_cast<int64_t>(ids.size()), vocabulary));
  return logits;
}

std::vector<float> PrefillLast(runtime::Session& session,
                               runtime::Sequence& sequence,
                               const std::vector<int32_t>& ids) {
  const int64_t vocabulary = session.bundle().manifest().model.vocab_size;
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  session.Prefill(sequence, ids, MatrixF(logits.data(), 1, vocabulary));
  return logits;
}

std::vector<float> DecodeOne(runtime::Session& session, runtime::Sequence& sequence, int32_t id) {
  const int64_t vocabulary = session.bundle().manifest().model.vocab_size;
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  runtime::Sequence* const sequences[] = {&sequence};
  const int32_t ids[] = {id};
  session.Decode(sequences, ids, MatrixF(logits.data(), 1, vocabulary));
  return logits;
}

double MaxDifference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= largest)) largest = difference;
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
  }
  return largest;
}

}  // namespace kvc::testing
