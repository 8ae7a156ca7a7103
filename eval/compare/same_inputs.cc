#include "eval/compare/same_inputs.h"

#include <string>

#include "core/base/rank_bytes.h"
#include "core/io/files.h"

namespace kvc::eval {
namespace {

// Appends tokens behind their number, so that no two lists have the same bytes.
void AppendTokens(std::string& bytes, const std::vector<int32_t>& ids) {
  const int64_t count = std::ssize(ids);
  AppendBytes(bytes, std::span(&count, 1));
  AppendBytes(bytes, std::span(ids));
}

void CheckSameFacts(Ranks& ranks,
                    const std::vector<std::filesystem::path>& bundles,
                    const std::string& tokens) {
  if (ranks.is_only()) return;
  RankFacts facts;
  for (const auto& bundle : bundles) {
    facts.emplace_back(bundle.string(), Sha256File(bundle / "manifest.json"));
  }
  facts.emplace_back("prompts", Sha256(std::as_bytes(std::span(tokens))));
  CheckAgreement(ranks, facts);
}

}  // namespace

void CheckSameInputs(Ranks& ranks,
                     const std::vector<std::filesystem::path>& bundles,
                     const std::vector<std::vector<int32_t>>& ids) {
  std::string bytes;
  for (const std::vector<int32_t>& tokens : ids) AppendTokens(bytes, tokens);
  CheckSameFacts(ranks, bundles, bytes);
}

void CheckSameInputs(Ranks& ranks,
                     const std::filesystem::path& bundle,
                     std::span<const AskedPrompt> prompts) {
  std::string bytes;
  for (const AskedPrompt& prompt : prompts) {
    AppendTokens(bytes, prompt.context);
    AppendTokens(bytes, prompt.question);
  }
  CheckSameFacts(ranks, {bundle}, bytes);
}

}  // namespace kvc::eval
