#include "chat/conversation.h"

#include <algorithm>

#include "chat/chat_loop.h"
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/cache/manifest.h"
#include "tests/runtime/test_bundles.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::chat {
namespace {

// Letters, and the two control tokens of chatml: ids of a vocabulary of 96.
class LetterTokenizer : public Tokenizer {
 public:
  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text,
                                            SpecialTokens /*special*/) const override {
    std::vector<int32_t> ids;
    while (!text.empty()) {
      const bool control = text.starts_with(kStart) || text.starts_with(kEnd);
      const std::string_view token = text.substr(0, !control                   ? 1
                                                    : text.starts_with(kStart) ? kStart.size()
                                                                               : kEnd.size());
      ids.push_back(*TokenId(token));
      text.remove_prefix(token.size());
    }
    return ids;
  }
  [[nodiscard]] std::string Decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (id == 0) text += kStart;
      if (id == 1) text += kEnd;
      if (id > 1) text += static_cast<char>(' ' + id - 2);
    }
    return text;
  }
  [[nodiscard]] int64_t vocab_size() const override { return 96; }
  [[nodiscard]] std::optional<int32_t> TokenId(std::string_view token) const override {
    if (token == kStart) return 0;
    if (token == kEnd) return 1;
    const char c = token[0] == '\n' ? ' ' : token[0];
    return c - ' ' + 2 < 96 ? c - ' ' + 2 : 2;
  }
  [[nodiscard]] std::optional<int32_t> bos_id() const override { return std::nullopt; }
  [[nodiscard]] std::optional<int32_t> eos_id() const override { return 1; }

 private:
  static constexpr std::string_view kStart = "<|im_start|>";
  static constexpr std::string_view kEnd = "<|im_end|>";
};

void Ignore(std::string_view) {}

class ConversationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::WriteBundle(testing::GoldenModel("llama"), directory_.path());
    bundle_ = runtime::Bundle::Load(directory_.path(), {}, pool_);
    session_ = runtime::Session::Create(bundle_, pool_);
    options_.generate.max_new_tokens = 5;
  }
  Conversation Make() { return {*session_, tokenizer_, ChatTemplateByName("chatml"), options_}; }
  // The answer to all tokens at once.
  std::vector<int32_t> AnswerTo(const std::vector<int32_t>& ids) {
    runtime::GenerateOptions generate = options_.generate;
    generate.stop_ids.push_back(1);
    const std::vector<int32_t> prompts[] = {ids};
    return runtime::Generate(*session_, prompts, generate, progress_).outputs[0].ids;
  }

  testing::TempDir directory_;
  ThreadPool pool_{1};
  LetterTokenizer tokenizer_;
  std::shared_ptr<const runtime::Bundle> bundle_;
  std::unique_ptr<runtime::Session> session_;
  ConversationOptions options_;
  NoProgress progress_;
};

// A turn on the cache that is there answers as the whole conversation read at once does.
TEST_F(ConversationTest, AnswersAsIfItReadEverythingAgain) {
  options_.system = "s";
  Conversation conversation = Make();
  const ChatTemplate& chat = ChatTemplateByName("chatml");
  const Message first[] = {{Role::kSystem, "s"}, {Role::kUser, "one"}};
  std::vector<int32_t> all = tokenizer_.EncodeParts(RenderConversation(chat, first));
  for (const char* user : {"one", "a\nb", "c"}) {
    if (conversation.turns() > 0) {
      const auto next = tokenizer_.EncodeParts(RenderNextTurn(chat, user));
      all.insert(all.end(), next.begin(), next.end());
    }
    std::string told;
    const Reply reply = conversation.Say(
        user, [&](std::string_view piece) { told += piece; }, progress_);
    const auto& ids = reply.generated.outputs[0].ids;
    EXPECT_EQ(ids, AnswerTo(all)) << user;
    EXPECT_EQ(told, reply.text);
    all.insert(all.end(), ids.begin(), ids.end());
    // The last token of a cut answer is read with the next message.
    const bool cut = reply.end == ReplyEnd::kLength;
    EXPECT_EQ(conversation.tokens(), std::ssize(all) - (cut ? 1 : 0));
  }
  EXPECT_EQ(conversation.turns(), 3);
  EXPECT_GT(conversation.cache().full_bytes, 0);
  conversation.Clear();
  EXPECT_EQ(conversation.tokens(), 0);
  EXPECT_EQ(conversation.turns(), 0);
  EXPECT_EQ(conversation.cache().allocated_bytes, 0);
}

TEST_F(ConversationTest, HoldsItsBudget) {
  const CacheSpec spec =
      testing::Policy(bundle_->manifest().cache, Method::kUniform, ScorerKind::kKeyDiff, 20, false);
  options_.generate.sequence.cache = spec;
  options_.generate.max_new_tokens = 2;
  Conversation conversation = Make();
  for (int turn = 0; turn < 3; ++turn) {
    const Reply reply = conversation.Say("abcd", Ignore, progress_);
    const auto bytes = PredictBytes(spec, conversation.tokens());
    EXPECT_LE(conversation.cache().allocated_bytes, bytes.allocated);
    EXPECT_EQ(reply.generated.outputs[0].cache.full_bytes, bytes.full);
  }
  const int64_t held = conversation.cache().logical_bytes;
  EXPECT_LT(held, conversation.cache().full_bytes / 2);
}

TEST_F(ConversationTest, StaysAsItWasWhereAMessageDoesNotFit) {
  Conversation conversation = Make();
  (void)conversation.Say("a", Ignore, progress_);
  const int64_t tokens = conversation.tokens();
  const std::string long_message(static_cast<size_t>(session_->context_length()), 'x');
  EXPECT_KVC_ERROR((void)conversation.Say(long_message, Ignore, progress_), kBadInput, "/clear");
  EXPECT_KVC_ERROR((void)conversation.Say("\xFF", Ignore, progress_), kBadInput, "UTF-8");
  EXPECT_EQ(conversation.tokens(), tokens);
  EXPECT_NO_THROW((void)conversation.Say("b", Ignore, progress_));
}

TEST_F(ConversationTest, EndsAnAnswerAtAStopTextOrAnInterrupt) {
  const Reply whole = Make().Say("a", Ignore, progress_);
  ASSERT_GE(whole.text.size(), 3U);
  options_.stops = {whole.text.substr(1, 2)};
  const Reply stopped = Make().Say("a", Ignore, progress_);
  EXPECT_EQ(stopped.end, ReplyEnd::kStopText);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(options_.stops[0])));
  options_.stops.clear();
  int asked = 0;
  options_.interrupted = [&] { return asked++ == 2; };  // once before, then for each token
  Conversation conversation = Make();
  const Reply interrupted = conversation.Say("a", Ignore, progress_);
  EXPECT_EQ(interrupted.end, ReplyEnd::kInterrupted);
  EXPECT_EQ(interrupted.generated.outputs[0].ids.size(), 2U);
  EXPECT_NO_THROW((void)conversation.Say("b", Ignore, progress_));
}

class Lines : public LineReader {
 public:
  explicit Lines(std::vector<std::string> lines) : lines_(std::move(lines)) {
    std::ranges::reverse(lines_);
  }
  std::optional<std::string> Read() override {
    if (lines_.empty()) return std::nullopt;
    std::string line = lines_.back();
    lines_.pop_back();
    return line;
  }

 private:
  std::vector<std::string> lines_;
};

TEST_F(ConversationTest, LoopKnowsItsCommands) {
  Conversation conversation = Make();
  Lines lines({"", "  ", "a\\", "b", "//c", "/stats", "/nonsense", "\xFF", "/clear", "d", "/stats",
               "/quit", "never"});
  std::string text;
  std::vector<std::string> notes;
  const ChatScreen screen = {[&](std::string_view piece) { text += piece; },
                             [&](const std::string& note) { notes.push_back(note); }};
  const auto turns = RunChat(conversation, lines, screen, progress_);
  ASSERT_EQ(turns.size(), 3U);
  EXPECT_EQ(turns[0].user, "a\nb");
  EXPECT_EQ(turns[1].user, "/c");
  EXPECT_EQ(turns[2].user, "d");
  EXPECT_EQ(text,
            turns[0].reply.text + "\n" + turns[1].reply.text + "\n" + turns[2].reply.text + "\n");
  std::erase_if(notes, [](const std::string& note) { return note.starts_with("the answer was"); });
  ASSERT_EQ(notes.size(), 5U);
  EXPECT_TRUE(notes[0].starts_with("2 turns, ")) << notes[0];
  EXPECT_NE(notes[0].find("in full it would be"), std::string::npos);
  EXPECT_TRUE(notes[1].starts_with("/nonsense: unknown"));
  EXPECT_NE(notes[2].find("UTF-8"), std::string::npos);
  EXPECT_EQ(notes[3], "a new conversation");
  EXPECT_TRUE(notes[4].starts_with("1 turn, ")) << notes[4];
  EXPECT_EQ(conversation.turns(), 1);
}

}  // namespace
}  // namespace kvc::chat
