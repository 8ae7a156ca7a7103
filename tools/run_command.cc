#include "tools/run_command.h"

#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

#include "chat/chat_loop.h"
#include "chat/token_output.h"
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "core/base/counted.h"
#include "core/base/error.h"
#include "core/base/error_place.h"
#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/io/json.h"
#include "core/io/text_input.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/results_json.h"
#include "export/budget/budget_plan.h"
#include "runtime/generator.h"
#include "runtime/session.h"
#include "tools/number_checks.h"
#include "tools/session_options.h"

namespace kvc::tools {
namespace {

std::vector<std::string> ReadPrompts(const RunOptions& options) {
  std::vector<std::string> texts = options.prompts;
  for (size_t i = 0; i < texts.size(); ++i) {
    CheckUtf8(texts[i], texts.size() > 1 ? "--prompt " + std::to_string(i + 1) : "--prompt");
  }
  for (const std::string& file : options.prompt_files) {
    for (std::string& document : ReadDocuments(file)) texts.push_back(std::move(document));
  }
  KVC_CHECK(!texts.empty(), kUsage, "prompt: expected --prompt or --prompt-file, got neither");
  return texts;
}

Json DryRun(const CacheSpec& spec,
            const std::vector<std::vector<int32_t>>& prompts,
            int64_t context_length,
            int64_t new_tokens) {
  Json plan;
  plan["method"] = MethodName(spec.method);
  plan["prompts"] = Json::array();
  for (const auto& prompt : prompts) {
    const auto length = static_cast<int64_t>(prompt.size());
    const CacheBytes bytes = PredictBytes(spec, length);
    plan["prompts"].push_back(
        {{"prompt_tokens", length},
         {"new_tokens", runtime::NewTokensWithin(context_length, length, new_tokens)},
         {"full_bytes", bytes.full},
         {"logical_bytes", bytes.logical},
         {"allocated_bytes", bytes.allocated}});
  }
  return plan;
}

// The generated texts, and the speed.
struct RunResult {
  std::vector<int64_t> prompt_tokens;  // of each output
  std::vector<std::string> texts;
  runtime::GenerateResult generated;
};

// Returns what ended a text: a stop token, -n, or the model's context.
const char* EndOf(const runtime::Generation& output) {
  if (output.stopped) return "stop";
  if (output.halted) return "stop-text";
  return output.cut ? "context" : "length";
}

// Says which texts the context cut short.
void LogCuts(const RunResult& result, int64_t context_length, int64_t wanted, Progress& progress) {
  for (size_t i = 0; i < result.generated.outputs.size(); ++i) {
    const runtime::Generation& output = result.generated.outputs[i];
    if (!output.cut) continue;
    progress.Log("prompt " + std::to_string(i + 1) + ": ended after " +
                 std::to_string(output.ids.size()) + " of " + Counted(wanted, "new token") +
                 ": the model's context of " + std::to_string(context_length) + " tokens is full");
  }
}

Json ToJson(const RunResult& result) {
  Json json;
  json["outputs"] = Json::array();
  for (size_t i = 0; i < result.texts.size(); ++i) {
    const runtime::Generation& output = result.generated.outputs[i];
    json["outputs"].push_back({{"prompt_tokens", result.prompt_tokens[i]},
                               {"token_ids", output.ids},
                               {"text", result.texts[i]},
                               {"stopped", output.stopped || output.halted},
                               {"ended", EndOf(output)}});
  }
  json["prefill_tokens_per_second"] = result.generated.PrefillRate();
  json["decode_tokens_per_second"] = result.generated.DecodeRate();
  json["cache"] = eval::CacheToJson(result.generated.MeanCache());
  return json;
}

// Prints texts on stdout, but for one that stands there already, and a line about speed and cache
// on stderr.
void Print(const RunResult& result, bool printed) {
  for (size_t i = 0; i < result.texts.size(); ++i) {
    if (result.texts.size() > 1) std::cout << "=== " << i + 1 << '\n';
    std::cout << (printed ? "" : result.texts[i]) << '\n';
  }
  std::cout.flush();
  std::fprintf(stderr, "%s\n", chat::SpeedAndCacheLine(result.generated).c_str());
}

// Returns the token ids of each text. Throws kBadInput naming the prompt.
std::vector<std::vector<int32_t>> EncodePrompts(const Tokenizer& tokenizer,
                                                const std::vector<std::string>& texts) {
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& text : texts) {
    const std::string place =
        texts.size() > 1 ? "prompt " + std::to_string(prompts.size() + 1) : "prompt";
    AtPlace(place, [&] { prompts.push_back(tokenizer.Encode(text, SpecialTokens::kAdd)); });
    KVC_CHECK(!prompts.back().empty(), kBadInput, "{}: expected text, got no token", place);
  }
  return prompts;
}

// What is told while texts grow: a single one, unless there will be JSON.
chat::TokenFormat FormatOf(const RunOptions& options, const CommonOptions& common, size_t prompts) {
  if (options.json_lines) return chat::TokenFormat::kJsonLines;
  const bool text = !common.json && prompts == 1;
  return text ? chat::TokenFormat::kText : chat::TokenFormat::kNothing;
}

RunResult GenerateTexts(const RunOptions& options,
                        const CommonOptions& common,
                        const Tokenizer& tokenizer,
                        const std::vector<std::vector<int32_t>>& prompts,
                        chat::TokenFormat format,
                        ThreadPool& pool) {
  const auto bundle = runtime::Bundle::Load(options.bundle, {}, pool);
  const auto session = runtime::Session::Create(bundle, SessionOptions(common, pool));
  chat::TokenOutput output(tokenizer, options.stops, prompts.size(), format, WriteStdout);
  runtime::GenerateOptions generate;
  generate.max_new_tokens = options.new_tokens;
  generate.sampling = options.sampling;
  generate.seed = common.seed;
  generate.stop_ids = runtime::StopIds(*bundle, tokenizer);
  generate.sequence.cache = OverridePolicy(options, bundle->manifest());
  generate.on_token = [&](size_t i, int32_t id) { return output.Take(i, id); };
  CommonOptions without_bar = common;  // which would stand in the text
  without_bar.quiet = common.quiet || format == chat::TokenFormat::kText;
  RunResult result;
  result.generated = runtime::Generate(*session, prompts, generate, *MakeProgress(without_bar));
  output.Finish();
  for (size_t i = 0; i < prompts.size(); ++i) {
    result.prompt_tokens.push_back(std::ssize(prompts[i]));
    result.texts.push_back(output.Text(i, result.generated.outputs[i].ids));
  }
  return result;
}

}  // namespace

std::optional<CacheSpec> OverridePolicy(const RunOptions& options, const Manifest& manifest) {
  if (options.budget.empty()) return std::nullopt;
  return budget::WithBudget(manifest, ParseBudget(options.budget, "--budget"), options.budget);
}

void AddRunOptions(CLI::App& app, RunOptions& options) {
  app.add_option("bundle", options.bundle, "Bundle made by kvc-export")->required();
  app.add_flag("--chat", options.chat, "Converse: lines of the standard input, on one cache");
  app.add_option("--prompt", options.prompts, "Prompt; repeatable")->allow_extra_args(false);
  app.add_option("--prompt-file", options.prompt_files, "UTF-8 text or .jsonl; repeatable")
      ->allow_extra_args(false);
  app.add_option("-n,--new-tokens", options.new_tokens, "New tokens at most")
      ->check(AboveZero())
      ->capture_default_str();
  app.add_option("--temperature", options.sampling.temperature, "0: greedy")
      ->check(ZeroOrMore())
      ->capture_default_str();
  app.add_option("--top-k", options.sampling.top_k, "Sample from the k most probable; 0: all")
      ->check(ZeroOrMore())
      ->capture_default_str();
  app.add_option("--top-p", options.sampling.top_p, "Sample from this mass of probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--budget", options.budget, "Instead of the manifest's: 25%, 512tok, 1GiB@128k");
  app.add_option("--stop", options.stops, "Text that ends a text; repeatable")
      ->allow_extra_args(false);
  app.add_flag("--json-lines", options.json_lines,
               "Print a JSON object for each token, and the one of --json, on one line, at the end")
      ->excludes("--chat");
  app.add_option("--system", options.system, "System prompt of the conversation")->needs("--chat");
  app.add_flag("--no-thinking", options.no_thinking,
               "Answer without thinking, where the template has a switch for it (qwen3)")
      ->needs("--chat");
  app.add_option("--template", options.chat_template,
                 "Chat template, instead of the bundle's own: " +
                     fmt::format("{}", fmt::join(chat::ChatTemplateNames(), ", ")))
      ->needs("--chat");
}

CommandResult RunPrompts(const RunOptions& options, const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  const std::vector<std::string> texts = ReadPrompts(options);
  const auto tokenizer = Tokenizer::Load(options.bundle);
  const Manifest manifest = ReadManifest(options.bundle);
  const int64_t context = manifest.model.context_length;
  const auto prompts = EncodePrompts(*tokenizer, texts);
  runtime::CheckPromptLengths(prompts, context);
  if (common.dry_run) {
    const Manifest whole = ReadManifestAndBases(options.bundle);
    const auto cache = OverridePolicy(options, whole);
    const Json plan = DryRun(cache.value_or(whole.cache), prompts, context, options.new_tokens);
    return {plan, [plan] { std::cout << plan["prompts"].dump(2) << '\n'; }};
  }
  const chat::TokenFormat format = FormatOf(options, common, prompts.size());
  const RunResult result = GenerateTexts(options, common, *tokenizer, prompts, format, pool);
  LogCuts(result, context, options.new_tokens, *MakeProgress(common));
  CommandResult done{ToJson(result), {}};
  done.one_line = options.json_lines;
  if (!options.json_lines) {
    done.print = [result, printed = format == chat::TokenFormat::kText] { Print(result, printed); };
  }
  return done;
}

}  // namespace kvc::tools
