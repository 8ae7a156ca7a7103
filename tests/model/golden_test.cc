// Logits against Hugging Face transformers, float32: tests/golden/README.md.

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "model/streamed.h"
#include "tests/model/golden_models.h"
#include "tests/support/paths.h"

namespace kvc::model {
namespace {

namespace fs = std::filesystem;

// The goal's bound for all families; what is seen is about 2e-5 at logits of size 15.
constexpr double kTolerance = 2e-4;

// Largest |actual - expected|; infinity when an element is NaN.
double MaxDifference(const float* actual, const std::vector<float>& expected) {
  double worst = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - expected[i]);
    worst = difference <= worst ? worst : (std::isnan(difference) ? INFINITY : difference);
  }
  return worst;
}

void ExpectGolden(const Checkpoint& checkpoint, const fs::path& file) {
  const SafetensorsReader golden = SafetensorsReader::OpenFile(file);
  const torch::Tensor logits =
      SequenceLogits(checkpoint, testing::TokenIds(golden)).contiguous();  // [T, V]
  ASSERT_EQ(logits.sizes().vec(), golden.Get("logits").shape);
  EXPECT_LE(MaxDifference(logits.data_ptr<float>(), testing::Elements<float>(golden, "logits")),
            kTolerance);
}

class GoldenTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, LogitsEqualTransformers) {
  const fs::path directory = testing::GoldenDirectory() / "models" / GetParam();
  ExpectGolden(Checkpoint::Open(directory), directory / "golden.safetensors");
}

INSTANTIATE_TEST_SUITE_P(All,
                         GoldenTest,
                         ::testing::ValuesIn(testing::GoldenNames()),
                         testing::ParameterName());
INSTANTIATE_TEST_SUITE_P(LengthDependent,
                         GoldenTest,
                         ::testing::ValuesIn(testing::LengthDependentNames()),
                         testing::ParameterName());

INSTANTIATE_TEST_SUITE_P(Short,
                         GoldenTest,
                         ::testing::ValuesIn(testing::ShortGoldenNames()),
                         testing::ParameterName());

TEST(GoldenTest, SharedStories260kLogitsEqualTransformers) {
  const fs::path directory = kvc::testing::SourceRoot() / "../shared/data/models/stories260k";
  if (!fs::exists(directory)) {
    GTEST_SKIP() << "needs " << directory;
  }
  ExpectGolden(Checkpoint::Open(directory),
               testing::GoldenDirectory() / "stories260k/golden.safetensors");
}

TEST(GoldenTest, SmolLm2LogitsEqualTransformers) {
  const fs::path directory = kvc::testing::SourceRoot() / "build/models/smollm2";
  if (!fs::exists(directory / "model.safetensors")) {
    GTEST_SKIP() << "needs SmolLM2 in " << directory;
  }
  const SafetensorsReader golden =
      SafetensorsReader::OpenFile(testing::GoldenDirectory() / "smollm2/golden.safetensors");
  const torch::Tensor logits =
      SequenceLogits(Checkpoint::Open(directory), testing::TokenIds(golden));  // [512, V]
  const auto index = [&](const char* name) {
    return torch::tensor(testing::Elements<int64_t>(golden, name));
  };
  const torch::Tensor rows = logits.index_select(0, index("positions"));  // [32, V]
  const torch::Tensor some = rows.index_select(1, index("vocabulary_ids")).contiguous();
  const torch::Tensor sums = rows.logsumexp(-1);  // [32]
  EXPECT_LE(MaxDifference(some.data_ptr<float>(), testing::Elements<float>(golden, "logits")),
            kTolerance);
  EXPECT_LE(MaxDifference(sums.data_ptr<float>(), testing::Elements<float>(golden, "logsumexp")),
            kTolerance);
  EXPECT_TRUE(torch::equal(rows.argmax(-1), index("argmax")));
}

}  // namespace
}  // namespace kvc::model
