#include "eval/compare/inputs.h"

#include <utility>

#include "core/base/error.h"
#include "core/cache/manifest.h"
#include "core/io/text_input.h"

namespace kvc::eval {

std::unique_ptr<runtime::Session> OpenSession(const std::filesystem::path& directory,
                                              const runtime::RuntimeOptions& options) {
  return runtime::Session::Create(runtime::Bundle::Load(directory, {}), options);
}

void CheckFitsContext(const std::filesystem::path& directory,
                      const std::string& options,
                      int64_t tokens) {
  const int64_t context = ReadManifest(directory).model.context_length;
  KVC_CHECK(tokens <= context, kUsage,
            "{}: expected at most the {} tokens of the model's context in {}, got {}; ask for less",
            options, context, directory.string(), tokens);
}

std::vector<std::string> ReadAll(const std::vector<std::filesystem::path>& files) {
  std::vector<std::string> documents;
  for (const std::filesystem::path& file : files) {
    for (std::string& document : ReadDocuments(file)) documents.push_back(std::move(document));
  }
  return documents;
}

std::string ReadHaystack(const std::filesystem::path& file) {
  std::string haystack;
  for (const std::string& document : ReadDocuments(file)) haystack += document;
  return haystack;
}

}  // namespace kvc::eval
