// The runtime on exported golden checkpoints: with the full cache its logits are the source
// model's.

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "core/io/safetensors.h"
#include "tests/runtime/loaded.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::GoldenLogits;
using testing::MaxDifference;
using testing::PrefillAll;
using testing::PrefillLast;
using testing::TempDir;

// The project's promise for an exported model in float.
constexpr double kTolerance = 1e-3;

class GoldenTest : public ::testing::TestWithParam<LayoutCase> {
 protected:
  [[nodiscard]] std::vector<float> Row(int64_t t) const {
    const size_t vocabulary = golden_.logits.size() / golden_.ids.size();
    const auto begin = golden_.logits.begin() + t * static_cast<int64_t>(vocabulary);
    return {begin, begin + static_cast<int64_t>(vocabulary)};
  }

  Loaded loaded_{GetParam()};
  Session* session_ = loaded_.session.get();
  GoldenLogits golden_ =
      testing::ReadGolden(testing::GoldenModel(GetParam().model) / "golden.safetensors");
};

TEST_P(GoldenTest, PrefillInChunks) {
  for (const int64_t chunk : {1, 7, 512}) {
    SequenceOptions options;
    options.chunk = chunk;
    const auto sequence = session_->NewSequence(options);
    EXPECT_LE(MaxDifference(PrefillAll(*session_, *sequence, golden_.ids), golden_.logits),
              kTolerance)
        << "chunk " << chunk;
    EXPECT_EQ(sequence->length(), static_cast<int64_t>(golden_.ids.size()));
  }
}

TEST_P(GoldenTest, LastRowAlone) {
  const auto sequence = session_->NewSequence({});
  const auto last = static_cast<int64_t>(golden_.ids.size()) - 1;
  EXPECT_LE(MaxDifference(PrefillLast(*session_, *sequence, golden_.ids), Row(last)), kTolerance);
}

TEST_P(GoldenTest, DecodeFromOneToken) {
  const auto sequence = session_->NewSequence({});
  EXPECT_LE(MaxDifference(PrefillLast(*session_, *sequence, {golden_.ids[0]}), Row(0)), kTolerance);
  for (size_t t = 1; t < golden_.ids.size(); ++t) {
    EXPECT_LE(MaxDifference(DecodeOne(*session_, *sequence, golden_.ids[t]),
                            Row(static_cast<int64_t>(t))),
              kTolerance)
        << "token " << t;
  }
}

// Longrope: a prompt beyond the original context is turned by the long factors, and tokens behind a
// shorter one by those of the length that they make, while cached keys stay as they are.
class LongRopeTest : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(LongRopeTest, PromptIsTurnedByItsLength) {
  Loaded loaded(GetParam());
  const GoldenLogits golden =
      testing::ReadGolden(testing::GoldenModel(GetParam().model) / "golden.safetensors");
  for (const int64_t chunk : {1, 7, 512}) {
    SequenceOptions options;
    options.chunk = chunk;
    const auto sequence = loaded.session->NewSequence(options);
    EXPECT_LE(MaxDifference(PrefillAll(*loaded.session, *sequence, golden.ids), golden.logits),
              kTolerance)
        << "chunk " << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(Models,
                         LongRopeTest,
                         ::testing::ValuesIn(OnBackends(std::vector<std::string>{
                             "mistral-longrope", "mistral-longrope-post-rope",
                             "mistral-longrope-rope-pairs"})),
                         LayoutName);

TEST(LongRopeTest, CachedKeysStayAsTheyAre) {
  Loaded loaded("mistral-longrope");
  constexpr int64_t kFirst = 20;  // as in make_models.py
  const GoldenLogits golden =
      testing::ReadGolden(testing::GoldenModel("mistral-longrope") / "cached.safetensors");
  const auto sequence = loaded.session->NewSequence({});
  const auto expected = [&](int64_t t) {
    const auto row = golden.logits.begin() + t * kVocabulary;
    return std::vector<float>(row, row + kVocabulary);
  };
  EXPECT_LE(MaxDifference(PrefillLast(*loaded.session, *sequence,
                                      {golden.ids.begin(), golden.ids.begin() + kFirst}),
                          expected(kFirst - 1)),
            kTolerance);
  for (int64_t t = kFirst; t < std::ssize(golden.ids); ++t) {
    EXPECT_LE(MaxDifference(DecodeOne(*loaded.session, *sequence, golden.ids[t]), expected(t)),
              kTolerance)
        << "token " << t;
  }
}

TEST(DynamicRopeTest, BundleEndsWithTheOriginalContext) {
  Loaded loaded("llama-dynamic");
  const GoldenLogits golden =
      testing::ReadGolden(testing::GoldenModel("llama-dynamic") / "short.safetensors");
  const auto sequence = loaded.session->NewSequence({});
  EXPECT_KVC_ERROR((void)PrefillLast(*loaded.session, *sequence, RandomIds(33, 1)), kBadInput,
                   "expected 1 to 32 tokens, got 33");
  EXPECT_LE(MaxDifference(PrefillAll(*loaded.session, *sequence, golden.ids), golden.logits),
            kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         GoldenTest,
                         ::testing::ValuesIn(OnBackends(testing::GoldenNames())),
                         LayoutName);

INSTANTIATE_TEST_SUITE_P(Short,
                         GoldenTest,
                         ::testing::ValuesIn(OnBackends(testing::ShortGoldenNames())),
                         LayoutName);

TEST(RuntimeGolden, SharedStories260k) {
  const std::filesystem::path model =
      kvc::testing::SourceRoot() / ".." / "shared" / "data" / "models" / "stories260k";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "needs ../shared/data/models/stories260k";
  TempDir directory;
  ThreadPool pool(2);
  testing::WriteBundle(model, directory.path());
  const auto session = Session::Create(Bundle::Load(directory.path(), {}, pool), pool);
  const GoldenLogits golden = testing::ReadGolden(kvc::testing::SourceRoot() /
                                                  "tests/golden/stories260k/golden.safetensors");
  const auto sequence = session->NewSequence({});
  EXPECT_LE(MaxDifference(PrefillAll(*session, *sequence, golden.ids), golden.logits), kTolerance);
}

// A real model: 32 of 512 positions and 256 of 49,152 logits at each are stored.
TEST(RuntimeGolden, SmolLm2) {
  const std::filesystem::path model = kvc::testing::SourceRoot() / "build" / "models" / "smollm2";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "needs build/models/smollm2 (make smollm2)";
  const SafetensorsReader golden = SafetensorsReader::OpenFile(
      kvc::testing::SourceRoot() / "tests/golden/smollm2/golden.safetensors");
  const auto integers = [&](const char* name) {
    const TensorRef& tensor = golden.Get(name);
    std::vector<int64_t> values(static_cast<size_t>(tensor.num_elements()));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  };
  std::vector<int32_t> ids;
  for (const int64_t id : integers("ids")) ids.push_back(static_cast<int32_t>(id));
  const auto positions = integers("positions");
  const auto vocabulary_ids = integers("vocabulary_ids");
  const TensorRef& stored = golden.Get("logits");
  std::vector<float> expected(static_cast<size_t>(stored.num_elements()));
  ConvertToFloat(stored.dtype, stored.bytes.data(), stored.num_elements(), expected.data());

  TempDir directory;
  ThreadPool pool(2);
  testing::WriteBundle(model, directory.path(), DType::kBF16);
  const auto bundle = Bundle::Load(directory.path(), {}, pool);
  const auto difference = [&](bool exact) {
    RuntimeOptions runtime;
    runtime.pool = &pool;
    runtime.exact = exact;
    const auto session = Session::Create(bundle, runtime);
    SequenceOptions options;
    options.cache = bundle->manifest().cache;
    options.cache->key_format = kRowsF32;
    options.cache->value_format = kRowsF32;
    const auto sequence = session->NewSequence(options);
    const std::vector<float> logits = PrefillAll(*session, *sequence, ids);
    const int64_t vocabulary = bundle->manifest().model.vocab_size;
    std::vector<float> actual;
    for (const int64_t position : positions) {
      for (const int64_t id : vocabulary_ids) actual.push_back(logits[position * vocabulary + id]);
    }
    return MaxDifference(actual, expected);
  };
  EXPECT_LE(difference(true), kTolerance);
  // Activations that are rounded to bf16 cost a few of its units in the largest logits (about 30).
  EXPECT_LE(difference(false), 30 * 0x1.0p-6);
}

}  // namespace
}  // namespace kvc::runtime
