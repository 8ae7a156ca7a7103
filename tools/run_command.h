#pragma once
// The command kvc-run: runs prompts through a bundle, or a conversation, and reports text and
// counters.

#include <optional>
#include <string>
#include <vector>

#include "kernels/sampling.h"
#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc {
struct CacheSpec;  // core/cache/cache_spec.h
struct Manifest;   // core/cache/manifest.h
}  // namespace kvc

namespace kvc::tools {

struct RunOptions {
  std::string bundle;
  std::vector<std::string> prompts;
  std::vector<std::string> prompt_files;
  int64_t new_tokens = 64;
  kernels::SamplingOptions sampling;
  std::string budget;  // empty: the manifest's
  std::vector<std::string> stops;
  bool json_lines = false;
  // --chat
  bool chat = false;
  std::optional<std::string> system;
  bool no_thinking = false;
  std::string chat_template;  // empty: the bundle's own
};

void AddRunOptions(CLI::App& app, RunOptions& options);

// Returns the policy that --budget sets instead of the manifest's.
[[nodiscard]] std::optional<CacheSpec> OverridePolicy(const RunOptions& options,
                                                      const Manifest& manifest);

// Generates, or with --dry-run returns the sizes of the caches. The text of a single prompt is
// printed while it grows.
[[nodiscard]] CommandResult RunPrompts(const RunOptions& options, const CommonOptions& common);
// --chat: a conversation with whoever writes lines to the standard input. JSON: {"template",
// "turns": [{"user", "text", "token_ids", "prompt_tokens", "ended"}], "cache"}.
[[nodiscard]] CommandResult RunConversation(const RunOptions& options, const CommonOptions& common);

}  // namespace kvc::tools
