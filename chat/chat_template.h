#pragma once
// How a model wants a conversation written: the tokens around each message.
//
// A checkpoint brings its template as a Jinja program. kvc knows the programs of the families that
// it runs, by their marks, and writes the same text itself: a list of parts in which only what
// comes from the template can be a control token (Tokenizer::EncodeParts), so that a message cannot
// pretend to be another one. Names, for --template:
//
//   chatml           <|im_start|>ROLE\nTEXT<|im_end|>\n
//   smollm2, qwen2, qwen2.5   the same, each with the system prompt that it has by itself
//   qwen3            the same without one; thinking stays in the conversation, and can be
//                    switched off
//   llama2           <s>[INST] TEXT [/INST] TEXT </s>, the system prompt in the first <<SYS>>
//   llama3           <|start_header_id|>ROLE<|end_header_id|>\n\nTEXT<|eot_id|>
//   llama3.1         the same behind a system message with dates
//   mistral-7b-v0.1, mistral-7b-v0.2   <s>[INST] TEXT [/INST]TEXT</s>
//   mistral-v1       the same with a space in front of [INST] and of an answer
//   mistral-v3       [INST] and [/INST] are tokens: <s>[INST] TEXT[/INST] TEXT</s>
//   mistral-v3-tekken   the same without spaces

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace kvc::chat {

enum class Role { kSystem, kUser, kAssistant };

struct Message {
  Role role = Role::kUser;
  std::string text;
};

// The text in front of a message and behind it.
struct Frame {
  std::string before;
  std::string after;
};

// Where the system prompt stands.
enum class SystemPlace {
  kOwn,        // in a message of its own
  kFirstUser,  // in the first message of the user, inside `system`
  kLastUser,   // in the last one
  kNowhere,    // the family knows none
};

// Around which messages white space is dropped, as Python's str.strip does.
enum class Trim { kNothing, kAnswers, kAll };

// A template. {bos} and {eos} in its texts are the tokenizer's own tokens.
struct ChatTemplate {
  std::string name;
  std::string begin;  // of the conversation
  Frame system;
  Frame user;
  Frame assistant;
  std::string generation;  // behind the last message, so that the model answers
  // Follows `generation` so that the model answers without thinking: thoughts that are empty. Empty
  // where the family has no such switch.
  std::string empty_thoughts;
  // What ends an answer, and begins the text behind it: a control token.
  std::string end_of_turn;
  SystemPlace system_place = SystemPlace::kOwn;
  std::optional<std::string> default_system = {};  // where the conversation has none
  Trim trim = Trim::kNothing;
};

// Returns the names above.
[[nodiscard]] std::vector<std::string> ChatTemplateNames();
// Throws kUsage, listing the names, for another one.
[[nodiscard]] const ChatTemplate& ChatTemplateByName(std::string_view name);
// Returns the template that a checkpoint's Jinja program is. Throws kUnsupported for one that kvc
// does not know, with its beginning and the names.
[[nodiscard]] ChatTemplate RecogniseChatTemplate(std::string_view program);
// Returns the Jinja program of a checkpoint or bundle: chat_template.jinja, else "chat_template" of
// tokenizer_config.json (of several, the one named "default"); none where there is none. Throws
// kBadInput for one that is not text.
[[nodiscard]] std::optional<std::string> ReadChatProgram(const std::filesystem::path& directory);
// Returns the template `name`, or where it is empty the directory's own. Throws as above, and
// kUnsupported where the directory has none.
[[nodiscard]] ChatTemplate ChatTemplateFor(const std::filesystem::path& directory,
                                           const std::string& name);

// Returns the template with thinking switched off, as apply_chat_template(enable_thinking=False)
// writes the beginning of an answer. Throws kUsage for a template without that switch.
[[nodiscard]] ChatTemplate WithoutThinking(ChatTemplate chat);

// Puts the tokenizer's own tokens in place of {bos} and {eos}. Throws kBadInput where the tokenizer
// has not the token, or end_of_turn is not one of its tokens.
[[nodiscard]] ChatTemplate ForTokenizer(ChatTemplate chat, const Tokenizer& tokenizer);

// Returns a whole conversation, with the beginning of an answer behind it. Throws kUsage unless, a
// system prompt in front excepted, user and assistant take turns, the user first and last; and for
// a system prompt that the family knows no place for.
[[nodiscard]] std::vector<TextPart> RenderConversation(const ChatTemplate& chat,
                                                       std::span<const Message> messages);
// Returns what follows an answer that is there already: its end, the next message of the user, and
// the beginning of an answer. Its first token is end_of_turn.
[[nodiscard]] std::vector<TextPart> RenderNextTurn(const ChatTemplate& chat,
                                                   const std::string& user);

}  // namespace kvc::chat
