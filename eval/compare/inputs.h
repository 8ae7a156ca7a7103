#pragma once
// The texts and the bundle that a measurement reads.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/base/thread_pool.h"
#include "runtime/session.h"

namespace kvc::eval {

// A session of the bundle in `directory`. The pool must outlive it. Throws as both do.
[[nodiscard]] std::unique_ptr<runtime::Session> OpenSession(const std::filesystem::path& directory,
                                                            ThreadPool& pool);

// The documents of all files, in order. Throws as ReadDocuments does.
[[nodiscard]] std::vector<std::string> ReadAll(const std::vector<std::filesystem::path>& files);
// The documents of one file, joined.
[[nodiscard]] std::string ReadHaystack(const std::filesystem::path& file);

}  // namespace kvc::eval
