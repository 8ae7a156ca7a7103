#include "chat/chat_template.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/core/tokenizer_cases.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::chat {
namespace {

namespace fs = std::filesystem;

Json Golden() { return ReadJsonFile(testing::SourceRoot() / "tests/golden/chat/golden.json"); }

// Writes a case's tokenizer, with its program as the checkpoint would bring it.
std::unique_ptr<Tokenizer> TokenizerOf(const Json& item, const fs::path& directory) {
  for (const auto& [name, content] : item.at("files").items()) {
    if (content.is_string()) {
      fs::copy_file(testing::GoldenTokenizers() / content.get<std::string>(), directory / name);
    } else {
      Json config = content;
      config["chat_template"] = item.at("program");
      testing::WriteText(directory / name, config.dump());
    }
  }
  return Tokenizer::Load(directory);
}

std::vector<Message> MessagesOf(const Json& conversation) {
  std::vector<Message> messages;
  for (const Json& message : conversation.at("messages")) {
    const auto role = message[0].get<std::string>();
    const Role known = role == "system" ? Role::kSystem
                       : role == "user" ? Role::kUser
                                        : Role::kAssistant;
    messages.push_back({known, message[1].get<std::string>()});
  }
  return messages;
}

// The template as the case asks for it.
ChatTemplate Switched(const Json& item, ChatTemplate chat) {
  return item.value("enable_thinking", true) ? chat : WithoutThinking(std::move(chat));
}

// The conversation as a whole, and its last turn as what follows an answer that is there.
void ExpectConversations(const Json& item,
                         const ChatTemplate& thinking,
                         const Tokenizer& tokenizer) {
  const ChatTemplate chat = Switched(item, thinking);
  for (const Json& conversation : item.at("conversations")) {
    const auto ids = conversation.at("ids").get<std::vector<int32_t>>();
    const std::vector<Message> messages = MessagesOf(conversation);
    EXPECT_EQ(tokenizer.EncodeParts(RenderConversation(chat, messages)), ids);
    const bool moves = chat.system_place == SystemPlace::kLastUser &&
                       messages[0].role == Role::kSystem;  // the system prompt, to the last turn
    if (messages.size() < 3 || moves) continue;
    const auto next = tokenizer.EncodeParts(RenderNextTurn(chat, messages.back().text));
    ASSERT_LT(next.size(), ids.size());
    EXPECT_EQ(next[0], tokenizer.TokenId(chat.end_of_turn));
    EXPECT_TRUE(std::equal(next.rbegin(), next.rend(), ids.rbegin()));
    const std::span<const Message> before(messages.data(), messages.size() - 2);
    // transformers leaves empty thoughts out of answers that are there.
    const auto first = tokenizer.EncodeParts(RenderConversation(thinking, before));
    ASSERT_LT(first.size() + next.size(), ids.size());
    EXPECT_TRUE(std::equal(first.begin(), first.end(), ids.begin()));
  }
}

TEST(ChatTemplate, GivesTheIdsOfTransformers) {
  const Json golden = Golden();
  ASSERT_GE(golden.at("cases").size(), ChatTemplateNames().size());
  for (const Json& item : golden.at("cases")) {
    SCOPED_TRACE(item.at("title").get<std::string>());
    const testing::TempDir directory;
    const auto tokenizer = TokenizerOf(item, directory.path());
    const ChatTemplate own = ChatTemplateFor(directory.path(), "");
    EXPECT_EQ(own.name, item.at("template").get<std::string>());
    ExpectConversations(item, ForTokenizer(own, *tokenizer), *tokenizer);
    if (item.at("title") != item.at("template")) continue;  // a system prompt of its own
    const ChatTemplate named = ChatTemplateFor(directory.path(), own.name);
    ExpectConversations(item, ForTokenizer(named, *tokenizer), *tokenizer);
  }
}

TEST(ChatTemplate, GivesTheIdsOfTransformersWithSmolLm2) {
  const fs::path model = testing::BinaryRoot() / "models/smollm2";
  if (!fs::exists(model / "tokenizer.json")) GTEST_SKIP() << "no " << model;
  const auto tokenizer = Tokenizer::Load(model);
  for (const Json& item : Golden().at("smollm2")) {
    const ChatTemplate chat = RecogniseChatTemplate(item.at("program").get<std::string>());
    EXPECT_EQ(chat.name, "smollm2");
    ExpectConversations(item, ForTokenizer(chat, *tokenizer), *tokenizer);
  }
}

// No message can end itself and begin another one.
TEST(ChatTemplate, KeepsMessagesInside) {
  for (const Json& item : Golden().at("cases")) {
    SCOPED_TRACE(item.at("title").get<std::string>());
    const testing::TempDir directory;
    const auto tokenizer = TokenizerOf(item, directory.path());
    const ChatTemplate chat = ForTokenizer(ChatTemplateFor(directory.path(), ""), *tokenizer);
    const auto count_ends = [&](const std::string& text) {
      const Message message[] = {{Role::kUser, text}};
      const auto ids = tokenizer->EncodeParts(RenderConversation(chat, message));
      return std::ranges::count(ids, *tokenizer->TokenId(chat.end_of_turn));
    };
    EXPECT_EQ(count_ends("x" + chat.end_of_turn + chat.system.before + "y"), count_ends("x"));
  }
}

TEST(ChatTemplate, IsFoundWhereACheckpointMayHaveIt) {
  const testing::TempDir directory;
  EXPECT_FALSE(ReadChatProgram(directory.path()));
  EXPECT_KVC_ERROR((void)ChatTemplateFor(directory.path(), ""), kUnsupported, "--template");
  const auto config = [&](const Json& json) {
    testing::WriteText(directory / "tokenizer_config.json", json.dump());
  };
  config({{"chat_template", nullptr}});
  EXPECT_FALSE(ReadChatProgram(directory.path()));
  config({{"chat_template", "{{ a }}"}});
  EXPECT_EQ(ReadChatProgram(directory.path()), "{{ a }}");
  config({{"chat_template",
           {{{"name", "tool_use"}, {"template", "t"}}, {{"name", "default"}, {"template", "d"}}}}});
  EXPECT_EQ(ReadChatProgram(directory.path()), "d");
  config({{"chat_template", 3}});
  EXPECT_KVC_ERROR((void)ReadChatProgram(directory.path()), kBadInput, "chat_template");
  testing::WriteText(directory / "chat_template.jinja", "{{ b }}");
  EXPECT_EQ(ReadChatProgram(directory.path()), "{{ b }}");
}

TEST(ChatTemplate, RefusesProgramsThatItDoesNotKnow) {
  for (const char* program :
       {"", "{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}{% endfor %}",
        // The marks of chatml and something that chatml does not do.
        "{{ strftime_now('%d') }}{{'<|im_start|>' + message['role'] + '\\n' + x + '<|im_end|>'}}",
        "{{'<|im_start|>' + message['role'] + '<|im_sep|>' + x + '<|im_end|>'}}",
        // An answer that always begins with thoughts.
        "{{'<|im_start|>' + message['role'] + '\\n' + x + '<|im_end|>'}}"
        "{{ '<|im_start|>assistant\\n<think>\\n' }}",
        // A system prompt that is put together.
        "{{'<|im_start|>system\\nIt is ' + day + '.<|im_end|>\\n'}}{{'<|im_start|>' + "
        "message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"}) {
    EXPECT_KVC_ERROR((void)RecogniseChatTemplate(program), kUnsupported, "--template NAME");
  }
  EXPECT_KVC_ERROR((void)ChatTemplateByName("pirate"), kUsage, "chatml, smollm2");
}

TEST(ChatTemplate, RefusesWhatATemplateHasNoPlaceFor) {
  const Message system[] = {{Role::kSystem, "s"}, {Role::kUser, "u"}};
  EXPECT_KVC_ERROR((void)RenderConversation(ChatTemplateByName("mistral-7b-v0.1"), system), kUsage,
                   "--system");
  const ChatTemplate& chatml = ChatTemplateByName("chatml");
  const Message twice[] = {{Role::kUser, "u"}, {Role::kUser, "u"}, {Role::kUser, "u"}};
  EXPECT_KVC_ERROR((void)RenderConversation(chatml, twice), kUsage, "message 1");
  const Message answered[] = {{Role::kUser, "u"}, {Role::kAssistant, "a"}};
  EXPECT_KVC_ERROR((void)RenderConversation(chatml, answered), kUsage, "at its end");
  const auto gpt2 = Tokenizer::Load(testing::GoldenTokenizers() / "gpt2-style");
  EXPECT_KVC_ERROR((void)ForTokenizer(chatml, *gpt2), kBadInput, "<|im_end|>");
  EXPECT_KVC_ERROR((void)WithoutThinking(chatml), kUsage, "--no-thinking");
}

}  // namespace
}  // namespace kvc::chat
