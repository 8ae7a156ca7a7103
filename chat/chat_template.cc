#include "chat/chat_template.h"

#include <array>
#include <utility>

#include "core/base/error.h"
#include "core/tokenizer/python_text.h"
#include "core/tokenizer/unicode.h"

namespace kvc::chat {
namespace {

constexpr char kBos[] = "{bos}";
constexpr char kEos[] = "{eos}";

std::string ChatMlBefore(const char* role) { return std::string("<|im_start|>") + role + "\n"; }

ChatTemplate ChatMl(const char* name, std::optional<std::string> default_system) {
  ChatTemplate chat;
  chat.name = name;
  chat.end_of_turn = "<|im_end|>";
  chat.system = {ChatMlBefore("system"), "<|im_end|>\n"};
  chat.user = {ChatMlBefore("user"), "<|im_end|>\n"};
  chat.assistant = {ChatMlBefore("assistant"), "<|im_end|>\n"};
  chat.generation = chat.assistant.before;
  chat.default_system = std::move(default_system);
  return chat;
}

ChatTemplate Qwen3() {
  ChatTemplate chat = ChatMl("qwen3", {});
  chat.empty_thoughts = "<think>\n\n</think>\n\n";
  return chat;
}

std::string Llama3Before(const char* role) {
  return std::string("<|start_header_id|>") + role + "<|end_header_id|>\n\n";
}

ChatTemplate Llama3(const char* name) {
  ChatTemplate chat;
  chat.name = name;
  chat.begin = kBos;
  chat.end_of_turn = "<|eot_id|>";
  chat.system = {Llama3Before("system"), chat.end_of_turn};
  chat.user = {Llama3Before("user"), chat.end_of_turn};
  chat.assistant = {Llama3Before("assistant"), chat.end_of_turn};
  chat.generation = chat.assistant.before;
  chat.trim = Trim::kAll;
  return chat;
}

ChatTemplate Llama31() {
  ChatTemplate chat = Llama3("llama3.1");
  // The date of templates that are given none.
  chat.system.before += "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
  chat.default_system = "";
  return chat;
}

ChatTemplate Llama2() {
  ChatTemplate chat;
  chat.name = "llama2";
  chat.end_of_turn = kEos;
  chat.system = {"<<SYS>>\n", "\n<</SYS>>\n\n"};
  chat.user = {std::string(kBos) + "[INST] ", " [/INST]"};
  chat.assistant = {" ", std::string(" ") + kEos};
  chat.system_place = SystemPlace::kFirstUser;
  chat.trim = Trim::kAll;
  return chat;
}

ChatTemplate Mistral(const char* name, Frame user, Frame assistant, SystemPlace place) {
  ChatTemplate chat;
  chat.name = name;
  chat.begin = kBos;
  chat.end_of_turn = kEos;
  chat.system = {"", "\n\n"};
  chat.user = std::move(user);
  chat.assistant = std::move(assistant);
  chat.system_place = place;
  if (place == SystemPlace::kLastUser) chat.trim = Trim::kAnswers;
  return chat;
}

const std::vector<ChatTemplate>& Templates() {
  static const std::vector<ChatTemplate> templates = {
      ChatMl("chatml", {}),
      ChatMl("smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
      ChatMl("qwen2", "You are a helpful assistant."),
      ChatMl("qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
      Qwen3(),
      Llama2(),
      Llama3("llama3"),
      Llama31(),
      Mistral("mistral-7b-v0.1", {"[INST] ", " [/INST]"}, {"", "{eos} "}, SystemPlace::kNowhere),
      Mistral("mistral-7b-v0.2", {"[INST] ", " [/INST]"}, {"", "{eos}"}, SystemPlace::kNowhere),
      Mistral("mistral-v1", {" [INST] ", " [/INST]"}, {" ", "{eos}"}, SystemPlace::kFirstUser),
      Mistral("mistral-v3", {"[INST] ", "[/INST]"}, {" ", "{eos}"}, SystemPlace::kLastUser),
      Mistral("mistral-v3-tekken", {"[INST]", "[/INST]"}, {"", "{eos}"}, SystemPlace::kLastUser),
  };
  return templates;
}

// str.rstrip() and str.lstrip() of valid UTF-8.
std::string WithoutSpaceBehind(std::string_view text) {
  while (!text.empty()) {
    const size_t begin = tokenizer::CharacterBefore(text, text.size());
    size_t at = begin;
    if (!tokenizer::IsPythonSpace(tokenizer::NextCodePoint(text, at))) break;
    text = text.substr(0, begin);
  }
  return std::string(text);
}

std::string WithoutSpaceAhead(std::string_view text) {
  while (!text.empty()) {
    size_t at = 0;
    if (!tokenizer::IsPythonSpace(tokenizer::NextCodePoint(text, at))) break;
    text = text.substr(at);
  }
  return std::string(text);
}

class Writer {
 public:
  explicit Writer(const ChatTemplate& chat) : chat_(chat) {}

  void Control(const std::string& text) {
    if (text.empty()) return;
    if (!parts_.empty() && parts_.back().control) {
      parts_.back().text += text;
    } else {
      parts_.push_back({text, true});
    }
  }
  void Own(const std::string& text) {
    if (!text.empty()) parts_.push_back({text, false});
  }
  void Framed(Role role, const std::string& text) {
    const bool answer = role == Role::kAssistant;
    const Frame& frame = answer ? chat_.assistant : role == Role::kUser ? chat_.user : chat_.system;
    const bool trims = chat_.trim == Trim::kAll || (answer && chat_.trim == Trim::kAnswers);
    Control(frame.before);
    Own(trims ? WithoutSpaceAhead(WithoutSpaceBehind(text)) : text);
    Control(frame.after);
  }
  // A message of the user with the system prompt inside.
  void UserWithSystem(const std::string& system, const std::string& text) {
    Control(chat_.user.before);
    Control(chat_.system.before);
    Own(system);
    Control(chat_.system.after);
    Own(chat_.trim == Trim::kAll ? WithoutSpaceBehind(text) : text);
    Control(chat_.user.after);
  }
  std::vector<TextPart> Take() { return std::move(parts_); }

 private:
  const ChatTemplate& chat_;
  std::vector<TextPart> parts_;
};

void CheckTurns(std::span<const Message> turns) {
  for (size_t i = 0; i < turns.size(); ++i) {
    KVC_CHECK(turns[i].role == (i % 2 == 0 ? Role::kUser : Role::kAssistant), kUsage,
              "message {}: expected user and assistant to take turns, the user first", i);
  }
  KVC_CHECK(turns.size() % 2 == 1, kUsage,
            "conversation: expected a message of the user at its end");
}

std::string ReplaceAll(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

}  // namespace

std::vector<std::string> ChatTemplateNames() {
  std::vector<std::string> names;
  for (const ChatTemplate& chat : Templates()) names.push_back(chat.name);
  return names;
}

const ChatTemplate& ChatTemplateByName(std::string_view name) {
  std::string names;
  for (const ChatTemplate& chat : Templates()) {
    if (chat.name == name) return chat;
    names += (names.empty() ? "" : ", ") + chat.name;
  }
  KVC_THROW(kUsage, "--template: expected one of {}, got \"{}\"", names, name);
}

ChatTemplate WithoutThinking(ChatTemplate chat) {
  KVC_CHECK(!chat.empty_thoughts.empty(), kUsage,
            "--no-thinking: expected a template that can switch thinking off (qwen3), got {}",
            chat.name);
  chat.generation += chat.empty_thoughts;
  return chat;
}

ChatTemplate ForTokenizer(ChatTemplate chat, const Tokenizer& tokenizer) {
  const std::array<std::pair<const char*, std::optional<int32_t>>, 2> tokens = {
      {{kBos, tokenizer.bos_id()}, {kEos, tokenizer.eos_id()}}};
  std::string* const texts[] = {&chat.begin,           &chat.system.before, &chat.system.after,
                                &chat.user.before,     &chat.user.after,    &chat.assistant.before,
                                &chat.assistant.after, &chat.generation,    &chat.end_of_turn};
  for (const auto& [name, id] : tokens) {
    for (std::string* text : texts) {
      if (text->find(name) == std::string::npos) continue;
      KVC_CHECK(id, kBadInput, "template {}: expected a tokenizer with {} token, got one without",
                chat.name, name == kBos ? "a bos" : "an eos");
      *text = ReplaceAll(*text, name, tokenizer.Decode(std::span(&*id, 1)));
    }
  }
  KVC_CHECK(tokenizer.TokenId(chat.end_of_turn), kBadInput,
            "template {}: expected {} among the tokenizer's tokens, got none; choose another "
            "--template",
            chat.name, chat.end_of_turn);
  return chat;
}

std::vector<TextPart> RenderConversation(const ChatTemplate& chat,
                                         std::span<const Message> messages) {
  std::optional<std::string> system = chat.default_system;
  if (!messages.empty() && messages[0].role == Role::kSystem) {
    KVC_CHECK(chat.system_place != SystemPlace::kNowhere, kUsage,
              "--system: expected none with the template {}, which knows no place for it",
              chat.name);
    system = messages[0].text;
    messages = messages.subspan(1);
  }
  CheckTurns(messages);
  Writer writer(chat);
  writer.Control(chat.begin);
  if (system && chat.system_place == SystemPlace::kOwn) writer.Framed(Role::kSystem, *system);
  const size_t holder = chat.system_place == SystemPlace::kLastUser ? messages.size() - 1 : 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (system && chat.system_place != SystemPlace::kOwn && i == holder) {
      writer.UserWithSystem(*system, messages[i].text);
    } else {
      writer.Framed(messages[i].role, messages[i].text);
    }
  }
  writer.Control(chat.generation);
  return writer.Take();
}

std::vector<TextPart> RenderNextTurn(const ChatTemplate& chat, const std::string& user) {
  Writer writer(chat);
  const size_t end = chat.assistant.after.find(chat.end_of_turn);
  writer.Control(chat.assistant.after.substr(end));
  writer.Framed(Role::kUser, user);
  writer.Control(chat.generation);
  return writer.Take();
}

}  // namespace kvc::chat
