// Which template a checkpoint's Jinja program is.

#include <algorithm>
#include <array>
#include <ctime>

#include "chat/chat_template.h"

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"

namespace kvc::chat {
namespace {

namespace fs = std::filesystem;

constexpr char kProgramFile[] = "chat_template.jinja";
constexpr char kConfigFile[] = "tokenizer_config.json";
constexpr char kChatMlEnd[] = "<|im_end|>";
constexpr char kLlama31Date[] = "26 Jul 2024";

// Returns the program in one spelling: no white space outside strings, every string in single
// quotes.
std::string OneSpelling(std::string_view program) {
  std::string text;
  char quote = '\0';
  for (size_t i = 0; i < program.size(); ++i) {
    const char c = program[i];
    if (quote != '\0' && c == '\\' && i + 1 < program.size()) {
      text += c;
      text += program[++i];
    } else if (c == quote) {
      text += '\'';
      quote = '\0';
    } else if (quote == '\0' && (c == '\'' || c == '"')) {
      text += '\'';
      quote = c;
    } else if (quote != '\0' && c == '\'') {
      text += "\\'";
    } else if (quote != '\0' || std::string_view(" \t\r\n").find(c) == std::string_view::npos) {
      text += c;
    }
  }
  return text;
}

// Marks in a program's one spelling: a template is recognised by having all of `has`, of each of
// `has_one_of` no less than one, and none of `has_not`.
struct Marks {
  const char* name;
  std::vector<std::string> has;
  std::vector<std::string> has_one_of;
  std::vector<std::string> has_not;
};

const std::vector<Marks>& AllMarks() {
  static const std::vector<std::string> chatml = {"'<|im_start|>'+message['role']+'\\n'+",
                                                  "'<|im_start|>'+message.role+'\\n'+"};
  static const std::vector<std::string> instruction = {"'[INST] '+message['content']+' [/INST]'"};
  static const std::string header =
      "'<|start_header_id|>'+message['role']+'<|end_header_id|>\\n\\n'";
  static const std::string answer = "message['content']+eos_token";
  static const std::vector<Marks> marks = {
      {"qwen3",
       {"enable_thinking", "'<think>\\n\\n</think>\\n\\n'", "<|im_end|>"},
       chatml,
       {"strftime_now"}},
      {"chatml",
       {"<|im_end|>"},
       chatml,
       {"enable_thinking", "strftime_now", "<|im_sep|>", "assistant\\n<think>"}},
      {"llama3.1", {header, "Cutting Knowledge Date: December 2023\\n", "<|eot_id|>"}, {}, {}},
      {"llama3", {header + "+message['content']|trim+'<|eot_id|>'"}, {}, {"Cutting Knowledge"}},
      {"llama2", {"'<<SYS>>\\n'", "bos_token+'[INST] '+content.strip()+' [/INST]'"}, {}, {}},
      {"mistral-7b-v0.1", {answer + "+' '"}, instruction, {"system_message"}},
      {"mistral-7b-v0.2", {answer}, instruction, {"system_message", answer + "+' '"}},
      {"mistral-v1",
       {"' [INST] '+message['content']+' [/INST]'", "' '+" + answer},
       {},
       {answer + "+' '"}},
      {"mistral-v3",
       {"'[INST] '+message['content']+'[/INST]'"},
       {"' '+" + answer, "' '+message['content']|trim+eos_token"},
       {}},
      {"mistral-v3-tekken",
       {"'[INST]'+message['content']+'[/INST]'"},
       {answer, "message['content']|trim+eos_token"},
       {"' '+message['content']"}},
  };
  return marks;
}

bool Fits(const Marks& marks, std::string_view program) {
  const auto has = [&](const std::string& mark) {
    return program.find(mark) != std::string_view::npos;
  };
  return std::ranges::all_of(marks.has, has) && std::ranges::none_of(marks.has_not, has) &&
         (marks.has_one_of.empty() || std::ranges::any_of(marks.has_one_of, has));
}

[[noreturn]] void Refuse(std::string_view spelled) {
  constexpr size_t kShown = 60;
  std::string names;
  for (const std::string& name : ChatTemplateNames()) names += (names.empty() ? "" : ", ") + name;
  KVC_THROW(
      kUnsupported,
      "chat_template: expected one of {}, got another, \"{}...\"; use --template NAME with the "
      "one that writes the same",
      names, spelled.substr(0, kShown));
}

// Returns the system prompt that a program of the chatml kind writes by itself. Refuses one that is
// put together.
std::optional<std::string> DefaultSystem(std::string_view spelled) {
  constexpr std::string_view kBefore = "'<|im_start|>system\\n";
  constexpr std::string_view kAfter = "<|im_end|>";
  for (size_t at = 0; (at = spelled.find(kBefore, at)) != std::string_view::npos;) {
    at += kBefore.size();
    if (spelled.substr(at).starts_with('\'')) continue;  // a message of the conversation follows
    std::string text;
    while (at + 1 < spelled.size() && !spelled.substr(at).starts_with(kAfter)) {
      if (spelled[at] == '\'') Refuse(spelled);
      if (spelled[at] != '\\') {
        text += spelled[at++];
        continue;
      }
      text += spelled[at + 1] == 'n' ? '\n' : spelled[at + 1];
      at += 2;
    }
    return text;
  }
  return std::nullopt;
}

// What programs of the chatml kind differ in.
void SetOwnWays(std::string_view spelled, ChatTemplate& chat) {
  chat.default_system = DefaultSystem(spelled);
  for (const std::string& name : ChatTemplateNames()) {
    const ChatTemplate& known = ChatTemplateByName(name);
    const bool same = chat.default_system && known.default_system == chat.default_system;
    if (same && known.end_of_turn == chat.end_of_turn) chat.name = name;
  }
  if (spelled.find("bos_token") != std::string_view::npos) chat.begin = "{bos}";
  for (const char* trimmed : {"message['content']|trim", "message.content|trim"}) {
    if (spelled.find(trimmed) != std::string_view::npos) chat.trim = Trim::kAll;
  }
}

std::string Today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[32];
  return {text, std::strftime(text, sizeof(text), "%d %b %Y", &local)};
}

void SetDate(const std::string& date, ChatTemplate& chat) {
  const size_t at = chat.system.before.find(kLlama31Date);
  if (at != std::string::npos) chat.system.before.replace(at, sizeof(kLlama31Date) - 1, date);
}

}  // namespace

ChatTemplate RecogniseChatTemplate(std::string_view program) {
  const std::string spelled = OneSpelling(program);
  for (const Marks& marks : AllMarks()) {
    if (!Fits(marks, spelled)) continue;
    ChatTemplate chat = ChatTemplateByName(marks.name);
    if (chat.end_of_turn == kChatMlEnd) SetOwnWays(spelled, chat);
    const bool trims_answers = spelled.find("|trim+eos_token") != std::string::npos;
    if (chat.trim == Trim::kAnswers && !trims_answers) chat.trim = Trim::kNothing;
    if (spelled.find("strftime_now") != std::string::npos) SetDate(Today(), chat);
    return chat;
  }
  Refuse(spelled);
}

std::optional<std::string> ReadChatProgram(const fs::path& directory) {
  if (fs::exists(directory / kProgramFile)) return ReadFile(directory / kProgramFile);
  if (!fs::exists(directory / kConfigFile)) return std::nullopt;
  const Json config = ReadJsonFile(directory / kConfigFile);
  if (!config.is_object() || !config.contains("chat_template")) return std::nullopt;
  const Json& program = config["chat_template"];
  if (program.is_null()) return std::nullopt;
  if (program.is_string()) return program.get<std::string>();
  if (program.is_array()) {
    for (const Json& entry : program) {
      if (entry.is_object() && entry.value("name", Json()) == "default" &&
          entry.value("template", Json()).is_string()) {
        return entry["template"].get<std::string>();
      }
    }
  }
  KVC_THROW(kBadInput, "{}: chat_template: expected text, or a list with one named default",
            (directory / kConfigFile).string());
}

ChatTemplate ChatTemplateFor(const fs::path& directory, const std::string& name) {
  if (!name.empty()) return ChatTemplateByName(name);
  const std::optional<std::string> program = ReadChatProgram(directory);
  KVC_CHECK(
      program, kUnsupported,
      "{}: expected a chat_template in {} or {}, got none; use --template NAME (kvc-run --help)",
      directory.string(), kConfigFile, kProgramFile);
  return RecogniseChatTemplate(*program);
}

}  // namespace kvc::chat
