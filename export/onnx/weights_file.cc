#include "export/onnx/weights_file.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>
#include <span>

#include "core/base/error.h"
#include "export/onnx/key_functions.h"
#include "export/onnx/unit_rows.h"

namespace kvc::onnx_export {
namespace {

int64_t NumElements(const Weight& weight) {
  return std::accumulate(weight.dims.begin(), weight.dims.end(), int64_t{1},
                         std::multiplies<int64_t>());
}

int64_t AlignUp(int64_t value) {
  return (value + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
}

// Appends cos or sin of position * inverse frequency [positions, r/2] for sequences of `length`
// tokens, times the attention factor, in double, rounded once.
void AppendAngles(const ModelConfig& config,
                  int64_t positions,
                  int64_t length,
                  bool cosine,
                  std::vector<float>& table) {
  const std::vector<double> frequencies =
      RopeInverseFrequencies(config.rope, config.head_width, length);
  const double factor = config.rope.attention_factor;
  for (int64_t position = 0; position < positions; ++position) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      table.push_back(static_cast<float>(factor * (cosine ? std::cos(angle) : std::sin(angle))));
    }
  }
}

// Returns the rows of a rotation table (ShortContext): those of short sequences, if the length
// matters, and those of sequences of any other length within the context.
std::vector<float> RopeTable(const ModelConfig& config, const Weight& weight) {
  const int64_t short_context = ShortContext(config);
  const bool cosine = weight.kind == WeightKind::kRopeCos;
  std::vector<float> table;
  table.reserve(static_cast<size_t>(NumElements(weight)));
  AppendAngles(config, short_context, short_context, cosine, table);
  AppendAngles(config, weight.dims[0] - short_context, short_context + 1, cosine, table);
  return table;
}

// Spreads packed blocks of ranks[i] rows (elements of a vector) to blocks of `stride` rows, with
// zeros between them.
std::vector<float> PadRows(const Weight& weight, const std::vector<float>& packed) {
  const int64_t columns = weight.dims.size() > 1 ? weight.dims[1] : 1;
  std::vector<float> padded(static_cast<size_t>(NumElements(weight)), 0.0F);
  int64_t source = 0;
  for (size_t block = 0; block < weight.ranks.size(); ++block) {
    const int64_t count = weight.ranks[block] * columns;
    const int64_t target = static_cast<int64_t>(block) * weight.stride * columns;
    std::copy_n(packed.begin() + source, count, padded.begin() + target);
    source += count;
  }
  return padded;
}

// Clears the columns of rebuild [G*D, stride] that lie beyond the rank of the row's group.
void ClearUnusedColumns(const Weight& weight, std::vector<float>& matrix) {
  const int64_t rows_of_group = weight.dims[0] / static_cast<int64_t>(weight.ranks.size());
  for (int64_t row = 0; row < weight.dims[0]; ++row) {
    const int64_t rank = weight.ranks[static_cast<size_t>(row / rows_of_group)];
    const auto begin = matrix.begin() + row * weight.stride;
    std::fill(begin + rank, begin + weight.stride, 0.0F);
  }
}

// Returns the latent's projection or rebuild in the coordinates that make rows of the rebuild unit
// vectors.
std::vector<float> UnitRowFactor(const Checkpoint& checkpoint, const Weight& weight) {
  LatentFactors factors{checkpoint.Load(Role::kK, weight.layer),
                        checkpoint.Load(Role::kKRebuild, weight.layer)};
  MakeUnitRows(weight.ranks, factors);
  return weight.role == Role::kK ? factors.latent : factors.rebuild;
}

void CheckFinite(const Weight& weight, std::span<const std::byte> bytes) {
  if (weight.dtype != DType::kF16) return;  // bf16 has float's range
  const auto* values = reinterpret_cast<const uint16_t*>(bytes.data());
  const size_t count = bytes.size() / sizeof(uint16_t);
  for (size_t i = 0; i < count; ++i) {
    KVC_CHECK((values[i] & 0x7FFFU) != 0x7C00U, kNumeric,
              "{}: element {}: expected a value within the range of f16 (65504), got a larger one; "
              "use --dtype bf16 or f32",
              weight.name, i);
  }
}

class DataFile {
 public:
  explicit DataFile(const std::filesystem::path& path)
      : path_(path), stream_(path, std::ios::binary | std::ios::trunc) {
    Check();
  }
  void Write(const Weight& weight, std::span<const std::byte> bytes) {
    const std::vector<char> padding(static_cast<size_t>(weight.offset - position_), '\0');
    stream_.write(padding.data(), static_cast<std::streamsize>(padding.size()));
    stream_.write(reinterpret_cast<const char*>(bytes.data()),
                  static_cast<std::streamsize>(bytes.size()));
    position_ = weight.offset + weight.bytes;
    Check();
  }
  void Close() {
    stream_.close();
    Check();
  }

 private:
  void Check() const {
    KVC_CHECK(stream_.good(), kIo,
              "{}: expected to write it, got {}; check permissions and free space", path_.string(),
              std::strerror(errno));
  }

  std::filesystem::path path_;
  std::ofstream stream_;
  int64_t position_ = 0;
};

}  // namespace

int64_t PlaceWeights(std::vector<Weight>& weights) {
  int64_t end = 0;
  for (Weight& weight : weights) {
    weight.offset = AlignUp(end);
    weight.bytes = NumElements(weight) * DTypeBytes(weight.dtype);
    end = weight.offset + weight.bytes;
  }
  return end;
}

std::vector<float> WeightValues(const Checkpoint& checkpoint, const Weight& weight) {
  const auto load = [&] {
    return weight.unit_rows ? UnitRowFactor(checkpoint, weight)
                            : checkpoint.Load(weight.role, weight.layer);
  };
  switch (weight.kind) {
    case WeightKind::kRopeCos:
    case WeightKind::kRopeSin:
      return RopeTable(checkpoint.config(), weight);
    case WeightKind::kPaddedRows:
      return PadRows(weight, load());
    case WeightKind::kRebuild: {
      std::vector<float> matrix = load();
      ClearUnusedColumns(weight, matrix);
      return matrix;
    }
    case WeightKind::kPlain:
      break;
  }
  return checkpoint.Load(weight.role, weight.layer);
}

void WriteWeights(const Checkpoint& checkpoint,
                  const std::vector<Weight>& weights,
                  const std::filesystem::path& path,
                  Progress& progress) {
  DataFile file(path);
  const auto total = static_cast<int64_t>(weights.size());
  for (int64_t i = 0; i < total; ++i) {
    const Weight& weight = weights[static_cast<size_t>(i)];
    progress.Report("weights", i, total);
    const std::vector<float> values = WeightValues(checkpoint, weight);
    KVC_CHECK(static_cast<int64_t>(values.size()) == NumElements(weight), kInternal,
              "{}: expected {} elements, got {}", weight.name, NumElements(weight), values.size());
    if (weight.dtype == DType::kF32) {
      file.Write(weight, std::as_bytes(std::span(values)));
    } else {
      std::vector<std::byte> bytes(static_cast<size_t>(weight.bytes));
      ConvertFromFloat(values.data(), NumElements(weight), weight.dtype, bytes.data());
      CheckFinite(weight, bytes);
      file.Write(weight, bytes);
    }
    const bool last_of_layer =
        weight.layer >= 0 && (i + 1 == total || weights[i + 1].layer != weight.layer);
    if (last_of_layer) checkpoint.ReleaseLayer(weight.layer);
  }
  progress.Report("weights", total, total);
  file.Close();
}

}  // namespace kvc::onnx_export
