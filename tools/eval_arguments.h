#pragma once
// What the subcommands of kvc-eval share in reading their arguments.

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/json.h"
#include "runtime/session.h"

namespace kvc::tools {

// Documents of all files, in order.
[[nodiscard]] std::vector<std::string> ReadAll(const std::vector<std::string>& files);
// --decode-policy: how it is added and what it means.
void AddDecodePolicy(CLI::App& app, std::string& policy);
[[nodiscard]] runtime::DecodePolicy DecodePolicyFromName(const std::string& name);
void PrintCache(const Json& cache);

}  // namespace kvc::tools
