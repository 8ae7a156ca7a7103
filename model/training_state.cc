#include "model/training_state.h"

#include <span>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/safetensors.h"

namespace kvc::model {
namespace {

constexpr const char* kProgressKey = "kvc_training";

std::span<const float> Values(const torch::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

// A copy of the named tensor [count].
torch::Tensor Load(const SafetensorsReader& reader, const std::string& name, int64_t count) {
  const TensorRef& ref = reader.Get(name);
  KVC_CHECK(ref.dtype == DType::kF32 && ref.num_elements() == count,
            kBadInput,
            "training_state.safetensors: ",
            name,
            ": expected ",
            count,
            " float32 elements, got ",
            ref.num_elements(),
            "; remove the unfinished output directory");
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
  SafetensorsWriter writer(path,
                           {{"values", DType::kF32, shape},
                            {"first_moment", DType::kF32, shape},
                            {"second_moment", DType::kF32, shape}},
                           {{kProgressKey, state.progress.dump()}});
  writer.WriteFloats("values", Values(state.values));
  writer.WriteFloats("first_moment", Values(state.first_moment));
  writer.WriteFloats("second_moment", Values(state.second_moment));
  writer.Close();
}

TrainingState LoadTrainingState(const std::filesystem::path& path, int64_t count) {
  const SafetensorsReader reader = SafetensorsReader::OpenFile(path);
  const auto progress = reader.metadata().find(kProgressKey);
  KVC_CHECK(progress != reader.metadata().end(),
            kBadInput,
            path.filename().string(),
            ": expected a checkpoint of kvc-train, got a file without ",
            kProgressKey);
  TrainingState state;
  state.values = Load(reader, "values", count);
  state.first_moment = Load(reader, "first_moment", count);
  state.second_moment = Load(reader, "second_moment", count);
  state.progress = ParseJson(progress->second, path.filename().string());
  return state;
}

}  // namespace kvc::model
