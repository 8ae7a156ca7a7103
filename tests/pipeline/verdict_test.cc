// The verdict of a run, and of two side by side.

#include "pipeline/report/verdict.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "pipeline/report/differences.h"
#include "pipeline/report/html_report.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::report {
namespace {

namespace fs = std::filesystem;

Json Cache(double share) {
  return {{"full_bytes", 1 << 20}, {"allocated_bytes", static_cast<int64_t>(share * (1 << 20))}};
}

Json Kld(double share, double kld, double error = 0.001, double full = 20.0) {
  return {{"command", "kvc-eval"},
          {"kld_mean", kld},
          {"kld_stderr", error},
          {"perplexity", 21.0},
          {"same_top", 0.9},
          {"cache", Cache(share)},
          {"perplexity_against", full},
          {"cache_against", Cache(1.0)}};
}

Json Bench(const std::string& method, double rate) {
  const auto rates = [](double mean) { return Json{{"mean", mean}, {"deviation", 0.5}}; };
  return {{"command", "kvc-bench"},
          {"method", method},
          {"budget", "25%"},
          {"prompt", {{"tokens", 512}, {"tokens_per_second", rates(700.0)}}},
          {"depths",
           {{{"depth", 0}, {"decode_tokens_per_second", rates(2.0 * rate)}, {"cache", Cache(0.1)}},
            {{"depth", 4096}, {"decode_tokens_per_second", rates(rate)}, {"cache", Cache(0.5)}}}}};
}

class VerdictTest : public ::testing::Test {
 protected:
  void Add(const std::string& folder, const std::string& name, const Json& json) {
    fs::create_directories(dir_ / folder);
    WriteJsonFile(dir_ / folder / (name + ".json"), json);
  }
  [[nodiscard]] report::Run Read(const std::string& folder, const std::string& letter = "") const {
    return ReadRun(dir_ / folder, letter);
  }
  testing::TempDir dir_;
};

TEST(ChooseCache, TakesTheSmallestThatIsClose) {
  const auto cache = [](double share, double kld) {
    JudgedCache one;
    one.share = share;
    one.kld = kld;
    return one;
  };
  EXPECT_EQ(ChooseCache({}), -1);
  EXPECT_EQ(ChooseCache({cache(NAN, 0.1), cache(0.5, NAN)}), -1);
  EXPECT_EQ(ChooseCache({cache(0.5, 0.01), cache(0.25, 0.1), cache(0.125, 0.11)}), 1);
  EXPECT_EQ(ChooseCache({cache(0.25, 0.3), cache(0.5, 0.2), cache(0.75, 0.4)}), 1);
  EXPECT_EQ(ChooseCache({cache(0.1, 0.3), cache(0.9, 0.05)}), 1);
}

TEST_F(VerdictTest, SaysBytesDivergenceNeedlesAndSpeed) {
  Add("run", "kld-small", Kld(0.25, 0.05));
  Add("run", "needle-small",
      {{"command", "kvc-eval"}, {"accuracy", 0.75}, {"cells", Json::array()}});
  Add("run", "needle-full", {{"command", "kvc-eval"}, {"accuracy", 1.0}, {"cells", Json::array()}});
  Add("run", "speed", Bench("lukv", 40.0));
  Add("run", "speed-full", Bench("full", 30.0));
  const Verdict verdict = VerdictOf(Read("run"));
  EXPECT_EQ(verdict.sentence,
            "small keeps 25.0 % of the full cache's bytes and diverges from it by 0.0500 nats "
            "(perplexity +5.0 %), finds 75.0 % of the needles, decodes 40.0 tokens/s.");
  ASSERT_EQ(verdict.tiles.size(), 4U);
  EXPECT_EQ(verdict.tiles[0].note, "256.0 KiB of 1.0 MiB");
  EXPECT_EQ(verdict.tiles[2].note, "full cache: 100.0 %");
  EXPECT_EQ(verdict.tiles[2].tone, Tile::Tone::kBad);
  EXPECT_EQ(verdict.tiles[3].note, "tokens/s at 4K tokens; full cache: 30.0");
  EXPECT_EQ(verdict.tiles[3].tone, Tile::Tone::kGood);
}

TEST_F(VerdictTest, SaysWhatWasNotMeasured) {
  Add("run", "kld-small", Kld(0.25, 0.5));
  const Verdict verdict = VerdictOf(Read("run"));
  EXPECT_EQ(verdict.tiles[1].tone, Tile::Tone::kBad);
  EXPECT_EQ(verdict.tiles[2].note, "not measured: kvc-eval needle");
  EXPECT_EQ(verdict.tiles[3].note, "not measured: kvc-bench");
  Add("none", "speed", Bench("lukv", 40.0));
  EXPECT_NE(VerdictOf(Read("none")).sentence.find("kvc-eval kld"), std::string::npos);
  EXPECT_TRUE(VerdictOf(Read("none")).tiles.empty());
}

TEST_F(VerdictTest, TwoRunsAreComparedAtEachSize) {
  Add("a", "kld-half", Kld(0.5, 0.01));
  Add("b", "kld-half", Kld(0.5, 0.02));
  Add("a", "kld-quarter", Kld(0.25, 0.10));
  Add("b", "kld-quarter", Kld(0.25, 0.05));
  Add("b", "kld-tiny", Kld(0.1, 0.5));  // A has nothing as small
  const auto sizes = CompareSizes(Read("a", "A"), Read("b", "B"));
  ASSERT_EQ(sizes.size(), 2U);
  EXPECT_NEAR(sizes[0].share, 0.25, 1e-6);
  EXPECT_EQ(sizes[0].better, AtSize::Better::kB);
  EXPECT_EQ(sizes[1].better, AtSize::Better::kA);
  EXPECT_EQ(
      SentenceOf(sizes),
      "A diverges less at 50.0 % (bundles) of the full cache's bytes. B diverges less at 25.0 % "
      "(bundles) of the full cache's bytes. Both measured the same full cache.");
}

TEST_F(VerdictTest, ADifferenceWithinTheErrorIsNone) {
  Add("a", "kld-half", Kld(0.5, 0.010, 0.004));
  Add("b", "kld-half", Kld(0.5, 0.020, 0.004));
  const auto sizes = CompareSizes(Read("a", "A"), Read("b", "B"));
  ASSERT_EQ(sizes.size(), 1U);
  EXPECT_EQ(sizes[0].better, AtSize::Better::kNeither);
}

TEST_F(VerdictTest, OtherTextsAreNotCompared) {
  Add("a", "kld-half", Kld(0.5, 0.01, 0.001, 20.0));
  Add("b", "kld-half", Kld(0.5, 0.05, 0.001, 25.0));
  const auto sizes = CompareSizes(Read("a", "A"), Read("b", "B"));
  ASSERT_EQ(sizes.size(), 1U);
  EXPECT_FALSE(sizes[0].same_text);
  EXPECT_NE(SentenceOf(sizes).find("not comparable"), std::string::npos);
  EXPECT_EQ(SizeTable(sizes).rows[0].back(), "another text");
}

TEST_F(VerdictTest, EveryValueIsInTheTableOfDifferences) {
  Add("a", "kld-half", Kld(0.5, 0.04));
  Add("b", "kld-half", Kld(0.25, 0.02));
  Add("b", "needle-half", {{"command", "kvc-eval"}, {"accuracy", 1.0}, {"cells", Json::array()}});
  const Table table = DifferenceTable(Read("a", "A"), Read("b", "B"));
  const auto row = [&](const std::string& measure) -> std::vector<std::string> {
    for (const auto& cells : table.rows) {
      if (cells[0] == "half" && cells[1] == measure) return {cells.begin() + 2, cells.end()};
    }
    return {};
  };
  using Cells = std::vector<std::string>;
  EXPECT_EQ(row("KL divergence"), (Cells{"0.04", "0.02", "-50.0 %", "B"}));
  EXPECT_EQ(row("cache bytes of the full"), (Cells{"50.0 %", "25.0 %", "-25.0 points", "B"}));
  EXPECT_EQ(row("perplexity"), (Cells{"21", "21", "+0.0 %", "-"}));
  EXPECT_EQ(row("needles found"), (Cells{"-", "100.0 %", "-", "-"}));
  const std::string html = HtmlComparison(dir_ / "a", dir_ / "b");
  EXPECT_NE(html.find(ToHtml(table)), std::string::npos);
  EXPECT_EQ(html, HtmlComparison(dir_ / "a", dir_ / "b"));
  EXPECT_NE(ComparisonTables(dir_ / "a", dir_ / "b").find(ToMarkdown(table)), std::string::npos);
}

// Two heads of three points: what is lost as shares of what each holds; the third head holds
// nothing.
TEST_F(VerdictTest, UtilityCurvesArePercentilesOfTheHeads) {
  Add("run", "kld", Kld(0.5, 0.04));
  fs::create_directories(dir_ / "run/profile");
  {
    SafetensorsWriter writer(dir_ / "run/profile/profile.safetensors",
                             {{"curve.knorm", DType::kF32, {1, 3, 3}}});
    writer.WriteFloats("curve.knorm",
                       std::vector<float>{2.0F, 1.0F, 0.0F, 4.0F, 1.0F, 0.0F, 0.0F, 0.0F, 0.0F});
    writer.Close();
  }
  const report::Run run = Read("run");
  ASSERT_EQ(run.profiles.size(), 1U);
  ASSERT_EQ(run.profiles[0].curves.size(), 1U);
  const ProfileSummary::Curve& curve = run.profiles[0].curves[0];
  EXPECT_EQ(curve.scorer, "knorm");
  EXPECT_EQ(curve.low, (std::vector<double>{1.0, 0.25, 0.0}));
  EXPECT_EQ(curve.high, (std::vector<double>{1.0, 0.5, 0.0}));
  {
    SafetensorsWriter writer(dir_ / "run/profile/profile.safetensors",
                             {{"curve.knorm", DType::kF32, {3}}});
    writer.WriteFloats("curve.knorm", std::vector<float>{2.0F, 1.0F, 0.0F});
    writer.Close();
  }
  EXPECT_KVC_ERROR((void)Read("run"), kBadInput, "curve.knorm: expected curves");
}

}  // namespace
}  // namespace kvc::report
