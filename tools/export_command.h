#pragma once
// What kvc-export does: checkpoint + profile + budget -> bundle, and the check of a bundle.

#include <string>

#include <CLI/CLI.hpp>

#include "core/json.h"
#include "tools/common_options.h"

namespace kvc::tools {

struct ExportOptions {
  std::string model;
  std::string output;
  std::string verify;  // a bundle to check instead
  std::string budget = "100%";
  std::string profile;
  std::string method;  // empty: full at 100 %, lukv with a profile, else uniform
  std::string scorer = "snapkv";
  std::string loss = "importance";
  std::string tiers;  // empty: DefaultTiers
  std::string basis = "offline";
  std::string dtype = "f32";
  std::string reference_length;  // empty: the profile's context, or 4096
  int64_t sinks = 4;
  int64_t window = 32;
  bool no_verify = false;
  bool force = false;
};

void AddExportOptions(CLI::App& app, ExportOptions& options);

// Exports, or checks when options.verify is set. Returns the command's JSON keys (CLI.md); a failed
// check throws kVerification and leaves nothing behind.
[[nodiscard]] Json RunExport(const ExportOptions& options, const CommonOptions& common);

// The result as text on stdout.
void PrintExport(const Json& result);

}  // namespace kvc::tools
