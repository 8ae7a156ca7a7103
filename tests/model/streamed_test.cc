#include "model/streamed.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "model/reference_run.h"
#include "model/threads.h"
#include "model/windows.h"
#include "tests/model/golden_models.h"

namespace kvc::model {
namespace {

using testing::OpenGolden;
using torch::Tensor;
using Windows = std::vector<std::vector<int32_t>>;

// One id for each byte.
class ByteTokenizer : public Tokenizer {
 public:
  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text, SpecialTokens) const override {
    return {text.begin(), text.end()};
  }
  [[nodiscard]] std::string Decode(std::span<const int32_t>) const override { return {}; }
  [[nodiscard]] int64_t vocab_size() const override { return 128; }
  [[nodiscard]] std::optional<int32_t> TokenId(std::string_view) const override { return {}; }
  [[nodiscard]] std::optional<int32_t> bos_id() const override { return {}; }
  [[nodiscard]] std::optional<int32_t> eos_id() const override { return {}; }
};

// Remembers the calls; throws at one of them when asked.
class RecordingProgress : public Progress {
 public:
  explicit RecordingProgress(int64_t stop_at = -1) : stop_at_(stop_at) {}
  void Report(const std::string&, int64_t done, int64_t total) override {
    dones.push_back(done);
    totals.push_back(total);
    KVC_CHECK(done != stop_at_, kInterrupted, "stopped");
  }
  void Log(const std::string&) override {}
  std::vector<int64_t> dones;
  std::vector<int64_t> totals;

 private:
  int64_t stop_at_;
};

Windows SomeWindows(int64_t count, int64_t length) {
  Windows windows(count);
  for (int64_t i = 0; i < count * length; ++i) {
    windows[i / length].push_back(static_cast<int32_t>((i * 37 + i * i * 11) % 96));
  }
  return windows;
}

// Hidden states [T, E] after the last layer, without streaming.
Tensor DirectHidden(const Checkpoint& checkpoint, const std::vector<int32_t>& ids) {
  const torch::NoGradGuard no_grad;
  const Tensor wide = torch::tensor(std::vector<int64_t>(ids.begin(), ids.end())).unsqueeze(0);
  Tensor hidden = Embed(checkpoint.config(), LoadOuter(checkpoint), wide);
  for (int64_t layer = 0; layer < checkpoint.config().num_layers; ++layer) {
    hidden = LayerForward(checkpoint.config(), LoadLayer(checkpoint, layer), layer, hidden);
  }
  return hidden.squeeze(0);
}

class StreamedTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { SetThreads(GetParam()); }
  void TearDown() override { SetThreads(0); }
};

TEST_P(StreamedTest, EqualsRunningTheLayersDirectly) {
  for (const char* name : {"gpt2", "llama", "llama-latent"}) {
    const Checkpoint checkpoint = OpenGolden(name);
    const Windows windows = SomeWindows(5, 33);
    NoProgress silent;
    const std::vector<Tensor> hidden = StreamWindows(checkpoint, windows, {}, nullptr, silent, "s");
    ASSERT_EQ(hidden.size(), 5U);
    for (size_t i = 0; i < windows.size(); ++i) {
      EXPECT_TRUE(torch::allclose(hidden[i], DirectHidden(checkpoint, windows[i]), 1e-5, 1e-5));
    }
  }
}

TEST_P(StreamedTest, VisitsLayersThenWindowsInOrder) {
  const Checkpoint checkpoint = OpenGolden("qwen3");
  const int64_t num_windows = 7;
  RecordingProgress progress;
  StreamOptions options;
  options.taps = {.projections = true, .probabilities = true};
  std::vector<int64_t> layers_done;
  options.after_layer = [&](int64_t layer, const std::vector<Tensor>& hidden) {
    layers_done.push_back(layer);
    EXPECT_EQ(hidden.size(), static_cast<size_t>(num_windows));
  };
  int64_t calls = 0;
  const auto hidden = StreamWindows(
      checkpoint, SomeWindows(num_windows, 12), options,
      [&](int64_t layer, int64_t window, const LayerTaps& taps, const LayerWeights& weights) {
        EXPECT_EQ(layer * num_windows + window, calls++);
        EXPECT_TRUE(torch::GradMode::is_enabled());
        EXPECT_EQ(taps.probabilities.size(-1), 12);
        EXPECT_FALSE(taps.attention.defined());
        EXPECT_TRUE(weights.q.defined());
      },
      progress, "stage");
  EXPECT_EQ(calls, 2 * num_windows);
  EXPECT_EQ(layers_done, (std::vector<int64_t>{0, 1}));
  std::vector<int64_t> expected(2 * num_windows);
  std::iota(expected.begin(), expected.end(), 1);
  EXPECT_EQ(progress.dones, expected);
  EXPECT_EQ(progress.totals, std::vector<int64_t>(2 * num_windows, 2 * num_windows));
  EXPECT_FALSE(hidden[0].requires_grad());
}

TEST_P(StreamedTest, GoesOnFromALayer) {
  const Checkpoint checkpoint = OpenGolden("llama");
  const Windows windows = SomeWindows(3, 20);
  NoProgress silent;
  StreamOptions first;
  StreamOptions second;
  second.first_layer = 1;
  first.after_layer = [&](int64_t layer, const std::vector<Tensor>& hidden) {
    if (layer == 0) {
      for (const Tensor& window : hidden) {
        second.initial_hidden.push_back(window.clone());
      }
    }
  };
  const auto whole = StreamWindows(checkpoint, windows, first, nullptr, silent, "s");
  int64_t calls = 0;
  const auto resumed = StreamWindows(
      checkpoint, windows, second,
      [&](int64_t layer, int64_t, const LayerTaps&, const LayerWeights&) {
        EXPECT_EQ(layer, 1);
        ++calls;
      },
      silent, "s");
  EXPECT_EQ(calls, 3);
  for (size_t i = 0; i < windows.size(); ++i) {
    EXPECT_TRUE(torch::equal(whole[i], resumed[i]));
  }
}

TEST_P(StreamedTest, StopsWhenProgressThrows) {
  RecordingProgress progress(4);
  const int threads = NumThreads();
  EXPECT_THROW(
      (void)StreamWindows(OpenGolden("llama"), SomeWindows(6, 20), {}, nullptr, progress, "s"),
      Error);
  EXPECT_EQ(progress.dones.size(), 4U);
  EXPECT_EQ(NumThreads(), threads);
}

INSTANTIATE_TEST_SUITE_P(Threads, StreamedTest, ::testing::Values(1, 2, 3));

TEST(StreamedTest, BytesDoNotDependOnThreads) {
  const Checkpoint checkpoint = OpenGolden("qwen2");
  const Windows windows = SomeWindows(4, 200);
  NoProgress silent;
  SetThreads(1);
  const auto one = StreamWindows(checkpoint, windows, {}, nullptr, silent, "s");
  const ModelDistance one_distance =
      CompareModels(checkpoint, OpenGolden("qwen2-latent"), windows, silent);
  SetThreads(3);
  const auto three = StreamWindows(checkpoint, windows, {}, nullptr, silent, "s");
  const ModelDistance three_distance =
      CompareModels(checkpoint, OpenGolden("qwen2-latent"), windows, silent);
  SetThreads(0);
  for (size_t i = 0; i < windows.size(); ++i) {
    EXPECT_TRUE(torch::equal(one[i], three[i]));
  }
  EXPECT_EQ(one_distance.kld, three_distance.kld);
  EXPECT_EQ(one_distance.perplexity, three_distance.perplexity);
}

TEST(StreamedTest, RefusesBadTokensAndNoTokens) {
  NoProgress silent;
  const Checkpoint checkpoint = OpenGolden("llama");
  for (const Windows& windows : {Windows{{1, 96}}, Windows{{-1}}, Windows{{}}}) {
    try {
      (void)StreamWindows(checkpoint, windows, {}, nullptr, silent, "s");
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kBadInput) << error.what();
    }
  }
  EXPECT_TRUE(StreamWindows(checkpoint, {}, {}, nullptr, silent, "s").empty());
}

TEST(CutWindowsTest, SpreadsWindowsOverTheText) {
  const ByteTokenizer tokenizer;
  const Windows windows = CutWindows(tokenizer, {"abcdefgh", "ijklmnopqrst"}, 3, 4);
  ASSERT_EQ(windows.size(), 3U);
  EXPECT_EQ(windows[0], (std::vector<int32_t>{'a', 'b', 'c', 'd'}));
  EXPECT_EQ(windows[1], (std::vector<int32_t>{'g', 'h', 'i', 'j'}));
  EXPECT_EQ(windows[2], (std::vector<int32_t>{'n', 'o', 'p', 'q'}));
  EXPECT_EQ(CutWindows(tokenizer, {"abcdefgh"}, 9, 3).size(), 2U);
  EXPECT_EQ(CutWindows(tokenizer, {"abc"}, 1, 3).size(), 1U);
}

TEST(CutWindowsTest, SaysHowManyTokensAreMissing) {
  try {
    (void)CutWindows(ByteTokenizer(), {"ab", "c"}, 1, 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kBadInput);
    EXPECT_NE(std::string(error.what()).find("4 tokens"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("got 3"), std::string::npos) << error.what();
  }
  EXPECT_THROW((void)CutWindows(ByteTokenizer(), {}, 1, 1), Error);
}

// Sums over one window in double, from whole logits.
struct Expected {
  double kl = 0.0;
  double nll = 0.0;
};
Expected Naive(const Tensor& reference, const Tensor& model, const std::vector<int32_t>& ids) {
  const int64_t vocabulary = reference.size(1);
  const auto log_softmax = [&](const Tensor& logits, int64_t row) {
    std::vector<double> out(vocabulary);
    double sum = 0.0;
    for (int64_t j = 0; j < vocabulary; ++j) {
      out[j] = logits[row][j].item<double>();
      sum += std::exp(out[j]);
    }
    for (double& value : out) {
      value -= std::log(sum);
    }
    return out;
  };
  Expected expected;
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    const std::vector<double> p = log_softmax(reference, static_cast<int64_t>(t));
    const std::vector<double> q = log_softmax(model, static_cast<int64_t>(t));
    for (int64_t j = 0; j < vocabulary; ++j) {
      expected.kl += std::exp(p[j]) * (p[j] - q[j]);
    }
    expected.nll -= q[ids[t + 1]];
  }
  return expected;
}

TEST(CompareTest, EqualsSumsOverWholeLogitsInDouble) {
  const Checkpoint reference = OpenGolden("qwen2");
  const Checkpoint model = OpenGolden("qwen2-latent");
  const Windows windows = SomeWindows(2, 70);  // more than one block of rows
  NoProgress silent;
  const ModelDistance distance = CompareModels(reference, model, windows, silent);
  Expected sums;
  for (const std::vector<int32_t>& ids : windows) {
    const Expected one = Naive(SequenceLogits(reference, ids), SequenceLogits(model, ids), ids);
    sums.kl += one.kl;
    sums.nll += one.nll;
  }
  EXPECT_EQ(distance.tokens, 2 * 69);
  EXPECT_GT(distance.kld, 0.0);
  EXPECT_NEAR(distance.kld, sums.kl / 138, 1e-5 * (1.0 + sums.kl / 138));
  EXPECT_NEAR(std::log(distance.perplexity), sums.nll / 138, 1e-5);
}

TEST(CompareTest, AModelIsAtNoDistanceFromItself) {
  const Checkpoint checkpoint = OpenGolden("llama");
  const Windows windows = SomeWindows(3, 20);
  NoProgress silent;
  const ReferenceRun reference = RunReference(checkpoint, windows, silent);
  const ModelDistance distance = CompareWith(reference, checkpoint, silent);
  EXPECT_EQ(distance.kld, 0.0);
  EXPECT_EQ(distance.perplexity, distance.reference_perplexity);
  EXPECT_EQ(distance.tokens, 3 * 19);
}

TEST(CompareTest, RefusesWindowsWithoutASuccessor) {
  NoProgress silent;
  const Checkpoint checkpoint = OpenGolden("llama");
  EXPECT_THROW((void)CompareModels(checkpoint, checkpoint, {{5}}, silent), Error);
  EXPECT_THROW((void)CompareModels(checkpoint, checkpoint, {}, silent), Error);
}

}  // namespace
}  // namespace kvc::model
