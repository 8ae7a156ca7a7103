#pragma once
// The file modeling_kvc.py beside a thin checkpoint: the model in Python, for Hugging Face
// transformers (docs/formats/thin-checkpoint.md, "modeling_kvc.py").

#include <filesystem>
#include <string>

#include "core/checkpoint/model_config.h"

namespace kvc::factorize {

// Returns the file's text for a family. It depends on nothing else: layout and ranks stand in
// config.json. Made from the template of the families with rotation, factorize/modeling/rotary.py,
// or from that of GPT-2, which the build embeds.
[[nodiscard]] std::string ModelingText(Family family);

// Writes what describes a thin model into `directory`: config.json (ConfigWithKeys) and
// modeling_kvc.py. Both appear whole. Throws kIo.
void WriteThinModel(const ModelConfig& config,
                    const KeyFactors& keys,
                    const std::filesystem::path& directory);

}  // namespace kvc::factorize
