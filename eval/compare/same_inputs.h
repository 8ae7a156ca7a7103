#pragma once
// The check that ranks which share a measurement have the same inputs.

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "core/base/ranks.h"
#include "eval/tasks/task_prompt.h"

namespace kvc::eval {

// Collective: throws kUsage where ranks have other bundles (by their manifests, which have the
// hashes of the files) or other token ids.
void CheckSameInputs(Ranks& ranks,
                     const std::vector<std::filesystem::path>& bundles,
                     const std::vector<std::vector<int32_t>>& ids);
// Likewise for questions.
void CheckSameInputs(Ranks& ranks,
                     const std::filesystem::path& bundle,
                     std::span<const AskedPrompt> prompts);

}  // namespace kvc::eval
