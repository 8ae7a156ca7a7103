// kvc-run --chat.

#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>

#include "chat/chat_loop.h"
#include "chat/chat_template.h"
#include "chat/conversation.h"
#include "chat/line_editor.h"
#include <unistd.h>

#include "core/base/error.h"
#include "core/cache/cache_spec.h"
#include "core/cache/manifest.h"
#include "core/io/json.h"
#include "eval/compare/results_json.h"
#include "runtime/session.h"
#include "tools/run_command.h"
#include "tools/session_options.h"

namespace kvc::tools {
namespace {

Json ToJson(const chat::ChatTurn& turn) {
  const runtime::GenerateResult& generated = turn.reply.generated;
  return {{"user", turn.user},
          {"text", turn.reply.text},
          {"token_ids", generated.outputs[0].ids},
          {"prompt_tokens", turn.reply.prompt_tokens},
          {"ended", chat::ReplyEndName(turn.reply.end)},
          {"prefill_tokens_per_second", generated.PrefillRate()},
          {"decode_tokens_per_second", generated.DecodeRate()},
          {"cache", eval::CacheToJson(generated.outputs[0].cache)}};
}

void Note(const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); }

chat::ConversationOptions OptionsOf(const RunOptions& options,
                                    const CommonOptions& common,
                                    const runtime::Bundle& bundle,
                                    const Tokenizer& tokenizer) {
  chat::ConversationOptions conversation;
  conversation.system = options.system;
  conversation.stops = options.stops;
  conversation.generate.max_new_tokens = options.new_tokens;
  conversation.generate.sampling = options.sampling;
  conversation.generate.seed = common.seed;
  conversation.generate.stop_ids = runtime::StopIds(bundle, tokenizer);
  conversation.interrupted = TakeInterrupt;
  conversation.generate.sequence.cache = OverridePolicy(options, bundle.manifest());
  return conversation;
}

chat::ChatTemplate TemplateOf(const RunOptions& options) {
  chat::ChatTemplate form = chat::ChatTemplateFor(options.bundle, options.chat_template);
  return options.no_thinking ? chat::WithoutThinking(std::move(form)) : form;
}

}  // namespace

CommandResult RunConversation(const RunOptions& options, const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  KVC_CHECK(options.prompts.empty() && options.prompt_files.empty(), kUsage,
            "--chat: expected messages on the standard input, got --prompt or --prompt-file");
  const chat::ChatTemplate form = TemplateOf(options);
  const auto tokenizer = Tokenizer::Load(options.bundle);
  const auto ready = chat::ForTokenizer(form, *tokenizer);
  if (common.dry_run) {
    return {{{"template", form.name}}, [form] { std::printf("template %s\n", form.name.c_str()); }};
  }
  const auto bundle = runtime::Bundle::Load(options.bundle, {}, pool);
  const auto session = runtime::Session::Create(bundle, SessionOptions(common, pool));
  chat::Conversation conversation(*session, *tokenizer, ready,
                                  OptionsOf(options, common, *bundle, *tokenizer));
  // For its handling of Ctrl-C: a bar would stand in the answers. Any other signal ends the
  // command, which writes nothing.
  (void)MakeProgress(common);
  std::signal(SIGTERM, SIG_DFL);
  NoProgress progress;
  chat::ChatScreen screen;
  screen.text = [&](std::string_view piece) {
    if (!common.json) WriteStdout(piece);
  };
  screen.note = Note;
  if (!common.quiet && isatty(STDIN_FILENO) == 1) Note("template " + form.name + "; /help");
  const auto turns =
      chat::RunChat(conversation, *chat::MakeLineReader("> ", TakeInterrupt), screen, progress);
  Json json = {{"template", form.name}, {"turns", Json::array()}};
  for (const chat::ChatTurn& turn : turns) json["turns"].push_back(ToJson(turn));
  json["cache"] =
      turns.empty() ? Json() : eval::CacheToJson(turns.back().reply.generated.MeanCache());
  return {json, [turns] {
            if (!turns.empty()) Note(chat::SpeedAndCacheLine(turns.back().reply.generated));
          }};
}

}  // namespace kvc::tools
