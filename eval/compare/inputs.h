#pragma once
// The texts and the bundle that a measurement reads.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "runtime/session.h"

namespace kvc::eval {

// Opens a session of the bundle in `directory`. Throws like Bundle::Load and Session::Create.
[[nodiscard]] std::unique_ptr<runtime::Session> OpenSession(const std::filesystem::path& directory,
                                                            const runtime::RuntimeOptions& options);

// Checks that a sequence of `tokens` fits the model of the bundle in `directory`, before anything
// is loaded; `options` names what asks for it. Throws kUsage, and what ReadManifest throws.
void CheckFitsContext(const std::filesystem::path& directory,
                      const std::string& options,
                      int64_t tokens);

// Returns the documents of all files, in order. Throws like ReadDocuments.
[[nodiscard]] std::vector<std::string> ReadAll(const std::vector<std::filesystem::path>& files);
// Returns the documents of one file, joined.
[[nodiscard]] std::string ReadHaystack(const std::filesystem::path& file);

}  // namespace kvc::eval
