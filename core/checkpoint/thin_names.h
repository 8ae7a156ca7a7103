#pragma once
// Names of a thin checkpoint that are its own, not those of the model it was made from
// (docs/formats/thin-checkpoint.md).

#include <string_view>

namespace kvc {

// The model_type of config.json. No other tool has it, so that none runs a thin checkpoint as if
// its keys were full; the family stands in the "kvc" block.
inline constexpr std::string_view kThinModelType = "kvc";
// The Python module beside the weights that defines the model for transformers, and its classes.
inline constexpr std::string_view kModelingModule = "modeling_kvc";
inline constexpr std::string_view kModelingConfigClass = "KvcConfig";
inline constexpr std::string_view kModelingModelClass = "KvcForCausalLM";

}  // namespace kvc
