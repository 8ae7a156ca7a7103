#include "tools/eval_arguments.h"

#include <cstdio>

#include "core/sizes.h"
#include "core/text_input.h"

namespace kvc::tools {

std::vector<std::string> ReadAll(const std::vector<std::string>& files) {
  std::vector<std::string> documents;
  for (const std::string& file : files) {
    for (std::string& document : ReadDocuments(file)) documents.push_back(std::move(document));
  }
  return documents;
}

void AddDecodePolicy(CLI::App& app, std::string& policy) {
  app.add_option(
         "--decode-policy",
         policy,
         "reallocate: the budget holds while decoding; append: tokens after the context are "
         "all kept")
      ->check(CLI::IsMember({"reallocate", "append"}))
      ->capture_default_str();
}

runtime::DecodePolicy DecodePolicyFromName(const std::string& name) {
  return name == "append" ? runtime::DecodePolicy::kAppend : runtime::DecodePolicy::kReallocate;
}

void PrintCache(const Json& cache) {
  std::printf("cache       %s of %s (allocated %s, peak %s)\n",
              FormatBytes(cache["logical_bytes"]).c_str(),
              FormatBytes(cache["full_bytes"]).c_str(),
              FormatBytes(cache["allocated_bytes"]).c_str(),
              FormatBytes(cache["peak_bytes"]).c_str());
}

}  // namespace kvc::tools
