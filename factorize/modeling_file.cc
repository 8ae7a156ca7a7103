#include "factorize/modeling_file.h"

#include <string_view>

#include "core/base/error.h"
#include "core/checkpoint/thin_names.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "factorize/modeling_templates.h"

namespace kvc::factorize {
namespace {

// The names that transformers has for a family.
struct PythonNames {
  std::string_view module;  // transformers.models.MODULE
  std::string_view prefix;  // of its classes
};

PythonNames NamesOf(Family family) {
  switch (family) {
    case Family::kGpt2:
      return {"gpt2", "GPT2"};
    case Family::kLlama:
      return {"llama", "Llama"};
    case Family::kMistral:
      return {"mistral", "Mistral"};
    case Family::kQwen2:
      return {"qwen2", "Qwen2"};
    case Family::kQwen3:
      return {"qwen3", "Qwen3"};
    case Family::kSmolLm3:
      return {"smollm3", "SmolLM3"};
    case Family::kStableLm:
      return {"stablelm", "StableLm"};
    case Family::kOlmo2:
      return {"olmo2", "Olmo2"};
  }
  KVC_THROW(kInternal, "modeling file: unknown family {}", static_cast<int>(family));
}

void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
    text.replace(at, from.size(), to);
    at += to.size();
  }
}

}  // namespace

std::string ModelingText(Family family) {
  const PythonNames names = NamesOf(family);
  std::string text(family == Family::kGpt2 ? kGpt2Template : kRotaryTemplate);
  ReplaceAll(text, "@MODULE@", names.module);
  ReplaceAll(text, "@CLASS@", names.prefix);
  return text;
}

void WriteThinModel(const ModelConfig& config,
                    const KeyFactors& keys,
                    const std::filesystem::path& directory) {
  WriteJsonFile(directory / "config.json", ConfigWithKeys(config, keys));
  WriteFile(directory / (std::string(kModelingModule) + ".py"), ModelingText(config.family));
}

}  // namespace kvc::factorize
