#pragma once
// Declarations of LibTorch's tensor and of the structs that hold tensors, without LibTorch. They
// are enough for a header whose functions take or return tensors; a source that calls these
// functions includes model/decoder.h or <torch/types.h>, which take seconds to parse.

namespace at {
class Tensor;
}
namespace torch {
using at::Tensor;
}

namespace kvc::model {
struct LayerTaps;
struct LayerWeights;
struct OuterWeights;
struct ReferenceRun;
struct TrainingState;
}  // namespace kvc::model
