#include "model/training_state.h"

#include <vector>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"

namespace kvc::model {
namespace {

constexpr const char* kProgressKey = "kvc_training";

void Write(SafetensorsWriter& writer, const char* name, const torch::Tensor& tensor) {
  const torch::Tensor host = tensor.cpu();
  writer.WriteFloats(name, {host.data_ptr<float>(), static_cast<size_t>(host.numel())});
}

// A copy of the named tensor [count].
torch::Tensor Load(const SafetensorsReader& reader,
                   const std::string& origin,
                   const std::string& name,
                   int64_t count) {
  const TensorRef& ref = reader.Get(name);
  KVC_CHECK(ref.dtype == DType::kF32 && ref.num_elements() == count, kBadInput,
            "{}: {}: expected {} float32 elements, got {}; remove the unfinished output directory",
            origin, name, count, ref.num_elements());
  torch::Tensor tensor = torch::empty({count}, torch::kFloat32);
  ConvertToFloat(ref.dtype, ref.bytes.data(), count, tensor.data_ptr<float>());
  return tensor;
}

}  // namespace

std::filesystem::path TrainingStatePath(const std::filesystem::path& directory) {
  return directory / "training_state.safetensors";
}

void SaveTrainingState(const TrainingState& state, const std::filesystem::path& path) {
  const std::vector<int64_t> shape = {state.values.numel()};
  std::vector<TensorSpec> specs = {{"values", DType::kF32, shape},
                                   {"first_moment", DType::kF32, shape},
                                   {"second_moment", DType::kF32, shape}};
  if (state.best.defined()) specs.push_back({"best", DType::kF32, shape});
  SafetensorsWriter writer(path, specs, {{kProgressKey, state.progress.dump()}});
  Write(writer, "values", state.values);
  Write(writer, "first_moment", state.first_moment);
  Write(writer, "second_moment", state.second_moment);
  if (state.best.defined()) Write(writer, "best", state.best);
  writer.Close();
}

TrainingState LoadTrainingState(const std::filesystem::path& path, int64_t count) {
  const SafetensorsReader reader = SafetensorsReader::OpenFile(path);
  const std::string origin = path.filename().string();
  const auto progress = reader.metadata().find(kProgressKey);
  KVC_CHECK(progress != reader.metadata().end(), kBadInput,
            "{}: expected the state of a training, got a file without {}", origin, kProgressKey);
  TrainingState state;
  state.values = Load(reader, origin, "values", count);
  state.first_moment = Load(reader, origin, "first_moment", count);
  state.second_moment = Load(reader, origin, "second_moment", count);
  if (reader.Contains("best")) state.best = Load(reader, origin, "best", count);
  state.progress = ParseJson(progress->second, origin);
  return state;
}

}  // namespace kvc::model
