// The public interface against the runtime that it stands on.

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include "core/tokenizer/tokenizer.h"
#include "kvc/kvc.h"
#include "runtime/generator.h"
#include "tests/runtime/test_bundles.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

constexpr char kPrompt[] = "Alice was beginning to get very tired of";
constexpr char kTurn[] = " She said that she would";

// A bundle of the bundled model, with its tokenizer and a full cache.
class ApiTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_directory = new testing::TempDir;
    const auto model = testing::SourceRoot() / "examples/models/needle-llama";
    testing::WriteBundle(model, shared_directory->path());
    std::filesystem::copy(model / "tokenizer.json", shared_directory->path());
    shared_bundle = new Bundle(Bundle::Load(shared_directory->path().string(), {.threads = 2}));
  }
  static void TearDownTestSuite() {
    delete shared_bundle;
    delete shared_directory;
  }
  static std::string Directory() { return shared_directory->path().string(); }
  static const Bundle& bundle() { return *shared_bundle; }

  // The runtime's ids behind `prompt`, greedily.
  static std::vector<int32_t> Expected(const std::vector<int32_t>& prompt, int64_t count) {
    ThreadPool pool(1);
    const auto loaded = runtime::Bundle::Load(Directory(), {});
    const auto session = runtime::Session::Create(loaded, pool);
    runtime::GenerateOptions options;
    options.max_new_tokens = count;
    options.stop_ids = runtime::StopIds(*loaded, *Tokenizer::Load(Directory()));
    NoProgress progress;
    const std::vector<std::vector<int32_t>> prompts = {prompt};
    return runtime::Generate(*session, prompts, options, progress).outputs[0].ids;
  }

  template <class Body>
  static ErrorCode CodeOf(const Body& body, const std::string& text) {
    try {
      body();
    } catch (const Exception& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
      return error.code();
    }
    ADD_FAILURE() << "no exception";
    return ErrorCode::kInternal;
  }

 private:
  static testing::TempDir* shared_directory;
  static Bundle* shared_bundle;
};
testing::TempDir* ApiTest::shared_directory = nullptr;
Bundle* ApiTest::shared_bundle = nullptr;

TEST_F(ApiTest, GeneratesWhatTheRuntimeDoes) {
  Session session(bundle());
  std::string heard;
  std::vector<int32_t> ids;
  const Generation result =
      session.Generate(kPrompt, {.max_new_tokens = 24}, [&](const Token& token) {
        heard += token.text;
        if (token.id >= 0) ids.push_back(token.id);
        return true;
      });
  const auto prompt = bundle().Encode(kPrompt, true);
  EXPECT_EQ(result.ids, Expected(prompt, 24));
  EXPECT_EQ(result.ids, ids);
  EXPECT_EQ(result.text, heard);
  EXPECT_EQ(result.text, bundle().Decode(result.ids));
  EXPECT_EQ(result.end, End::kLength);
  EXPECT_EQ(result.prompt_tokens, std::ssize(prompt));
  EXPECT_EQ(session.tokens(), std::ssize(prompt) + 24);
}

// Every way to say the same gives the same: turns, pieces that are read without generating, clones.
TEST_F(ApiTest, TurnsGoOntoTheCache) {
  Session turns(bundle());
  const Generation first = turns.Generate(kPrompt, {.max_new_tokens = 8});
  const Generation second = turns.Generate(kTurn, {.max_new_tokens = 8});
  std::vector<int32_t> all = bundle().Encode(kPrompt, true);
  all.insert(all.end(), first.ids.begin(), first.ids.end());
  const auto turn = bundle().Encode(kTurn);
  all.insert(all.end(), turn.begin(), turn.end());
  EXPECT_EQ(second.ids, Expected(all, 8));
  Session read(bundle());
  EXPECT_TRUE(read.Extend(std::span(all).first(11)));
  EXPECT_TRUE(read.Extend(std::span(all).subspan(11)));
  EXPECT_EQ(read.tokens(), std::ssize(all));
  Session clone = read.Clone();
  EXPECT_EQ(read.Generate("", {.max_new_tokens = 8}).ids, second.ids);
  EXPECT_EQ(clone.tokens(), std::ssize(all));
  EXPECT_EQ(clone.Generate("", {.max_new_tokens = 8}).ids, second.ids);
}

TEST_F(ApiTest, HoldsItsBudget) {
  const CacheUse predicted = bundle().PredictCache(200, "64tok");
  EXPECT_LT(predicted.allocated, predicted.full / 2);
  Session session(bundle(), {.budget = "64tok"});
  session.Extend(std::vector<int32_t>(201, 7));
  EXPECT_EQ(session.cache().allocated, predicted.allocated);
  for (int turn = 0; turn < 3; ++turn) {
    session.Generate(kTurn, {.max_new_tokens = 20});
    EXPECT_EQ(session.cache().allocated, predicted.allocated);
  }
  EXPECT_GT(session.cache().full, predicted.full);
  EXPECT_GE(session.cache().peak, predicted.allocated);
}

TEST_F(ApiTest, EndsAtAStopText) {
  const std::string free = Session(bundle()).Generate(kPrompt, {.max_new_tokens = 24}).text;
  const size_t at = free.size() / 2;
  const std::string stop = free.substr(at, 5);
  Session session(bundle());
  std::string heard;
  const Generation result = session.Generate(
      kPrompt, {.max_new_tokens = 24, .stop = {"no such text", stop}}, [&](const Token& token) {
        heard += token.text;
        return true;
      });
  EXPECT_EQ(result.text, free.substr(0, free.find(stop)));
  EXPECT_EQ(heard, result.text);
  EXPECT_EQ(result.end, End::kStopText);
  // What might have begun a stop text is told in the end.
  Session other(bundle());
  const std::string longer = free.substr(at) + "and never this";
  EXPECT_EQ(other.Generate(kPrompt, {.max_new_tokens = 24, .stop = {longer}}).text, free);
}

TEST_F(ApiTest, ACallbackEndsOrThrows) {
  Session session(bundle());
  const auto once = [](const Token&) { return false; };
  const Generation result = session.Generate(kPrompt, {}, once);
  EXPECT_EQ(result.end, End::kCallback);
  EXPECT_EQ(result.ids, Expected(bundle().Encode(kPrompt, true), 1));
  EXPECT_THROW(
      session.Generate("", {}, [](const Token&) -> bool { throw std::logic_error("mine"); }),
      std::logic_error);
  // The conversation goes on behind the two tokens.
  EXPECT_EQ(session.Generate("", {.max_new_tokens = 5}).ids.back(),
            Expected(bundle().Encode(kPrompt, true), 7).back());
}

TEST_F(ApiTest, AnotherThreadCancels) {
  Session session(bundle());
  std::stop_source source;
  std::atomic<int> heard = 0;
  std::thread other([&] {
    while (heard.load() < 3) std::this_thread::yield();
    source.request_stop();
  });
  const Generation result = session.Generate(
      kPrompt, {.max_new_tokens = 500, .cancel = source.get_token()}, [&](const Token&) {
        ++heard;
        // Slower than the other thread, however few processors there are.
        if (heard.load() >= 3) {
          while (!source.stop_requested()) std::this_thread::yield();
        }
        return true;
      });
  other.join();
  EXPECT_EQ(result.end, End::kCancelled);
  EXPECT_EQ(result.ids, Expected(bundle().Encode(kPrompt, true), std::ssize(result.ids)));
  EXPECT_LT(result.ids.size(), 500U);
}

// A prompt that was cancelled is read by the next call.
TEST_F(ApiTest, ACancelledPromptIsNotLost) {
  std::stop_source source;
  source.request_stop();
  Session session(bundle());
  EXPECT_FALSE(session.Extend(kPrompt, source.get_token()));
  EXPECT_EQ(session.Generate("", {.cancel = source.get_token()}).end, End::kCancelled);
  EXPECT_EQ(session.Generate("", {.max_new_tokens = 9}).ids,
            Expected(bundle().Encode(kPrompt, true), 9));
}

TEST_F(ApiTest, SaysWhatIsWrong) {
  EXPECT_EQ(CodeOf([] { (void)Bundle::Load("/no/such/bundle"); }, "/no/such/bundle"),
            ErrorCode::kIo);
  EXPECT_EQ(CodeOf([] { (void)Bundle::Load(Directory(), {.device = "abacus"}); }, "abacus"),
            ErrorCode::kDevice);
  EXPECT_EQ(CodeOf([] { Session(bundle(), {.budget = "nonsense"}); }, "nonsense"),
            ErrorCode::kUsage);
  EXPECT_EQ(CodeOf([] { Session(bundle(), {.budget = "0.0001%"}); }, "budget"),
            ErrorCode::kInfeasible);
  Session session(bundle());
  EXPECT_EQ(CodeOf([&] { session.Generate(""); }, "the session has read nothing"),
            ErrorCode::kUsage);
  EXPECT_EQ(CodeOf([&] { session.Generate(kPrompt, {.max_new_tokens = 0}); }, "max_new_tokens"),
            ErrorCode::kUsage);
  EXPECT_EQ(CodeOf([&] { session.Extend("\xFF"); }, "UTF-8"), ErrorCode::kInput);
  const std::vector<int32_t> unknown = {1, 1 << 20};
  EXPECT_EQ(CodeOf([&] { session.Extend(unknown); }, "token 1"), ErrorCode::kInput);
  const std::vector<int32_t> many(static_cast<size_t>(bundle().context_length()) + 1, 7);
  EXPECT_EQ(CodeOf([&] { session.Extend(many); }, "expected at most"), ErrorCode::kInput);
  EXPECT_EQ(session.tokens(), 0);
  EXPECT_EQ(session.Generate(kPrompt, {.max_new_tokens = 4}).ids,
            Expected(bundle().Encode(kPrompt, true), 4));
}

// Sessions of one bundle on several threads, which clone a common one: what each would say alone.
TEST_F(ApiTest, ThreadsHaveSessionsOfTheirOwn) {
  Session shared(bundle(), {.budget = "64tok"});
  shared.Extend(kPrompt);
  const auto say = [&](Session session, int i) {
    const GenerateOptions options = {
        .max_new_tokens = 12, .temperature = 1.0, .seed = static_cast<uint64_t>(i)};
    std::vector<int32_t> ids = session.Generate(kTurn, options).ids;
    const auto more = session.Generate(" and", options).ids;
    ids.insert(ids.end(), more.begin(), more.end());
    return ids;
  };
  std::vector<std::vector<int32_t>> alone, together(4);
  std::vector<Session> clones;
  for (int i = 0; i < 4; ++i) {
    alone.push_back(say(shared.Clone(), i));
    clones.push_back(shared.Clone());
  }
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] { together[i] = say(std::move(clones[i]), i); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(together, alone);
}

}  // namespace
}  // namespace kvc
