#include "tools/eval_arguments.h"

#include <CLI/CLI.hpp>

#include "core/base/rank_bytes.h"
#include "core/base/sizes.h"
#include "core/io/files.h"
#include "tools/number_checks.h"

namespace kvc::tools {
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
                     std::span<const eval::AskedPrompt> prompts) {
  std::string bytes;
  for (const eval::AskedPrompt& prompt : prompts) {
    AppendTokens(bytes, prompt.context);
    AppendTokens(bytes, prompt.question);
  }
  CheckSameFacts(ranks, {bundle}, bytes);
}

void AddDecodePolicy(CLI::App& app, std::string& policy) {
  app.add_option(
         "--decode-policy", policy,
         "reallocate: the budget holds while decoding; append: tokens after the context are "
         "all kept")
      ->check(CLI::IsMember({"reallocate", "append"}))
      ->capture_default_str();
}

runtime::DecodePolicy ParseDecodePolicy(const std::string& policy) {
  return policy == "append" ? runtime::DecodePolicy::kAppend : runtime::DecodePolicy::kReallocate;
}

void AddNeedleOptions(CLI::App& app, NeedleArguments& args) {
  app.add_option("--lengths", args.lengths, "Lengths of the needle prompts in tokens")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--depths", args.options.depths, "Where the needle stands, 0 to 1")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--distractors", args.options.distractors, "Needles with other keys and values")
      ->check(ZeroOrMore())
      ->capture_default_str();
  AddQuestionOption(app, args.question);
}

void AddQuestionOption(CLI::App& app, std::string& question) {
  app.add_option("--question", question,
                 "before: it is in the prompt when the cache is compressed; after: it is not")
      ->check(CLI::IsMember({"before", "after"}))
      ->capture_default_str();
}

std::vector<int64_t> ParseLengths(const std::vector<std::string>& lengths) {
  std::vector<int64_t> parsed;
  for (const std::string& length : lengths) parsed.push_back(ParseLength(length, "--lengths"));
  return parsed;
}

eval::NeedleOptions NeedleArguments::Resolve(runtime::DecodePolicy policy, uint64_t seed) const {
  eval::NeedleOptions resolved = options;
  resolved.lengths = ParseLengths(lengths);
  resolved.question_before = question == "before";
  resolved.policy = policy;
  resolved.seed = seed;
  return resolved;
}

eval::RulerOptions RulerArguments::Resolve(uint64_t seed) const {
  eval::RulerOptions options;
  if (!tasks.empty()) options.tasks = tasks;
  options.lengths = ParseLengths(lengths);
  options.samples = samples;
  options.seed = seed;
  return options;
}

}  // namespace kvc::tools
