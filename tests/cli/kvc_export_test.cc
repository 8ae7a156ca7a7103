// kvc-export as a user meets it: exit codes, messages, and nothing left behind after a failure.

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <sys/wait.h>

#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = kvc::testing::SourceRoot() / "tests" / "golden" / "models";
const std::string kExport = kvc::testing::BinaryRoot().string() + "/bin/kvc-export";

struct Outcome {
  int code = 0;
  std::string text;  // stdout and stderr
};

Outcome Shell(const std::string& command) {
  Outcome outcome;
  FILE* pipe = popen(("{ " + command + "; } 2>&1").c_str(), "r");
  if (pipe == nullptr) return {-1, "no shell"};
  std::array<char, 4096> buffer{};
  size_t count = 0;
  while ((count = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    outcome.text.append(buffer.data(), count);
  }
  const int status = pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return outcome;
}

class KvcExportTest : public ::testing::Test {
 protected:
  // kvc-export with `arguments`; OUT stands for the bundle's path.
  Outcome Export(const std::string& model, const std::string& arguments) {
    return Shell(kExport + " " + (kModels / model).string() + " --quiet -o " + out().string() +
                 " " + arguments);
  }
  void ExpectFailure(const Outcome& outcome, int code, const std::string& text) {
    EXPECT_EQ(outcome.code, code) << outcome.text;
    EXPECT_NE(outcome.text.find("kvc-export: error: "), std::string::npos) << outcome.text;
    EXPECT_NE(outcome.text.find(text), std::string::npos) << outcome.text;
    EXPECT_EQ(std::count(outcome.text.begin(), outcome.text.end(), '\n'), 1) << outcome.text;
    EXPECT_TRUE(fs::is_empty(directory_.path())) << "something was left behind";
  }
  [[nodiscard]] fs::path out() const { return directory_ / "bundle"; }

  testing::TempDir directory_;
};

TEST_F(KvcExportTest, WritesAndVerifiesABundle) {
  const Outcome outcome = Export("llama-latent", "--budget 60% --json");
  ASSERT_EQ(outcome.code, 0) << outcome.text;
  const Json result = ParseJson(outcome.text, "stdout");
  EXPECT_EQ(result["command"], "kvc-export");
  EXPECT_EQ(result["method"], "uniform");
  EXPECT_LE(result["budget_bytes_per_token_share"].get<double>(), 0.6);
  const Json model = ReadJsonFile(out() / "manifest.json")["model"];
  EXPECT_EQ(result["heads"].size(), model["num_hidden_layers"].get<size_t>());
  EXPECT_EQ(result["heads"][0].size(), model["num_key_value_heads"].get<size_t>());
  EXPECT_TRUE(result["solver"].contains("gap"));
  EXPECT_TRUE(result["verified_max_abs_error"].is_null() ||
              result["verified_max_abs_error"].get<double>() <= 1e-3);
  const Outcome again = Shell(kExport + " --quiet --verify " + out().string());
  EXPECT_EQ(again.code, 0) << again.text;
}

TEST_F(KvcExportTest, TheSameBytesWithAnyNumberOfThreads) {
  ASSERT_EQ(Export("qwen2-latent", "--threads 1 --budget 70%").code, 0);
  fs::rename(out(), directory_ / "first");
  ASSERT_EQ(Export("qwen2-latent", "--threads 3 --budget 70%").code, 0);
  for (const auto& entry : fs::directory_iterator(out())) {
    const std::string name = entry.path().filename().string();
    EXPECT_EQ(Sha256File(entry.path()), Sha256File(directory_ / "first" / name)) << name;
  }
}

TEST_F(KvcExportTest, DryRunWritesNothing) {
  const Outcome outcome = Export("llama", "--budget 70% --dry-run --json");
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  EXPECT_GT(ParseJson(outcome.text, "stdout")["heads"][0][0]["tokens"].get<int64_t>(), 0);
  EXPECT_TRUE(fs::is_empty(directory_.path()));
}

TEST_F(KvcExportTest, NamesTheSmallestPossibleBudget) {
  ExpectFailure(Export("llama", "--budget 1%"), 4, "expected at least ");
  ExpectFailure(Export("llama", "--budget 30% --method full"), 4, "expected at least 100%");
}

TEST_F(KvcExportTest, RefusesContradictingOptions) {
  ExpectFailure(Export("llama", "--method lukv --budget 70%"), 2, "--profile");
  ExpectFailure(Export("llama", "--method best"), 2, "--method: expected one of full");
  ExpectFailure(Export("llama", "--budget 150%"), 2, "--budget");
  ExpectFailure(Export("llama", "--dtype f64"), 2, "f64");
  ExpectFailure(Export("llama", "--dtype int8"), 2, "int8");
  ExpectFailure(Export("llama", "--cache-dtype int4"), 2, "int4");
  ExpectFailure(Export("llama", "--reference-length 1M"), 2, "--reference-length");
  ExpectFailure(Shell(kExport + " -o " + out().string()), 2, "MODEL");
  ExpectFailure(Shell(kExport + " " + (kModels / "llama").string()), 2, "-o");
}

TEST_F(KvcExportTest, RefusesWhatDoesNotGoTogetherByName) {
  const std::string tiers = "--budget 70% --method uniform --tiers ";
  ExpectFailure(Export("llama", tiers + "0,1/8"), 2, "--tiers: expected shares");
  ExpectFailure(Export("llama", tiers + "0,1/2,1"), 2, "--basis prompt");
  ExpectFailure(Export("llama", tiers + "0,1/2,1 --basis none"), 2, "--basis: expected one of");
  ExpectFailure(Export("llama", tiers + "0,1/64,1 --basis prompt"), 3, "got 0.015625 of keys");
  ExpectFailure(Export("llama", tiers + "0,1/2,1 --basis prompt --scorer knorm"), 3, "got knorm");
  ExpectFailure(Export("llama", "--budget 70% --method lukv-mixed"), 2, "--profile");
  ExpectFailure(Export("qwen2-latent", "--budget 70% --method ada"), 3, "--method ada");
}

TEST_F(KvcExportTest, WritesTiers) {
  const Outcome result =
      Export("llama", "--budget 90% --method uniform --tiers 0,1/4,1/2,1 --basis prompt");
  EXPECT_EQ(result.code, 0) << result.text;
  const Manifest manifest = ReadManifest(out());
  EXPECT_TRUE(manifest.cache.has_narrow_tiers());
  EXPECT_EQ(manifest.cache.basis, TierBasis::kPrompt);
  ASSERT_EQ(manifest.cache.tiers.size(), 3U);
  EXPECT_EQ(manifest.cache.tiers[2].value_share, 0.25);
  EXPECT_EQ(Shell(kExport + " --verify " + out().string()).code, 0);
}

// "auto" follows config.json: llama says bfloat16, gpt2 float32.
TEST_F(KvcExportTest, KeepsTheCheckpointsTypes) {
  ASSERT_EQ(Export("llama", "").code, 0);
  Manifest manifest = ReadManifest(out());
  EXPECT_EQ(manifest.weights_dtype, DType::kBF16);
  EXPECT_EQ(manifest.cache.key_format, kRowsBF16);
  EXPECT_EQ(manifest.cache.original_dtype, DType::kBF16);
  ASSERT_EQ(Export("gpt2", "--force").code, 0);
  manifest = ReadManifest(out());
  EXPECT_EQ(manifest.weights_dtype, DType::kF32);
  EXPECT_EQ(manifest.cache.original_dtype, DType::kF32);
  ASSERT_EQ(Export("llama", "--force --dtype f32 --cache-dtype int8").code, 0);
  manifest = ReadManifest(out());
  EXPECT_EQ(manifest.weights_dtype, DType::kF32);
  EXPECT_EQ(manifest.cache.key_format, kRowsInt8);
  EXPECT_EQ(manifest.cache.value_format, kRowsInt8);
  EXPECT_EQ(manifest.cache.original_dtype, DType::kBF16);
  EXPECT_EQ(Shell(kExport + " --quiet --verify " + out().string()).code, 0);
}

// A cache that takes more bytes than the original's is still the full cache.
TEST_F(KvcExportTest, FullIsNeverRefused) {
  const Outcome full = Export("llama", "--dtype f32 --method full --dry-run --json");
  ASSERT_EQ(full.code, 0) << full.text;
  const Json result = ParseJson(full.text, "stdout");
  EXPECT_EQ(result["original_dtype"], "bf16");
  EXPECT_EQ(result["budget_bytes_per_token_share"], 2.0);
  // What is budgeted stays within the original's bytes.
  const Outcome half =
      Export("llama", "--dtype f32 --method uniform --budget 100% --dry-run --json");
  ASSERT_EQ(half.code, 0) << half.text;
  EXPECT_LE(ParseJson(half.text, "stdout")["budget_bytes_per_token_share"].get<double>(), 1.0);
}

TEST_F(KvcExportTest, RefusesBrokenModels) {
  ExpectFailure(Export("no-such-model", ""), 6, "no-such-model");
  ExpectFailure(Export("llama", "--profile /nonexistent"), 6, "/nonexistent");
}

TEST_F(KvcExportTest, KeepsAnExistingOutputUnlessForced) {
  fs::create_directory(out());
  WriteFile(out() / "mine", "text");
  const Outcome refused = Export("gpt2", "");
  EXPECT_EQ(refused.code, 2) << refused.text;
  EXPECT_EQ(ReadFile(out() / "mine"), "text");
  EXPECT_EQ(Export("gpt2", "--force").code, 0);
  EXPECT_FALSE(fs::exists(out() / "mine"));
}

TEST_F(KvcExportTest, SaysWhyItCannotWrite) {
  const Outcome outcome =
      Shell(kExport + " " + (kModels / "gpt2").string() + " --quiet -o /dev/null/bundle");
  ExpectFailure(outcome, 6, "/dev/null");
  // A file size limit is what a full disk looks like to write().
  const Outcome full = Shell("trap '' XFSZ; ulimit -f 8; " + kExport + " " +
                             (kModels / "gpt2").string() + " --quiet -o " + out().string());
  ExpectFailure(full, 6, "model.onnx.data");
}

class TamperedBundle : public KvcExportTest {
 protected:
  void SetUp() override { ASSERT_EQ(Export("llama", "--budget 70%").code, 0); }
  void ExpectRefused(int code, const std::string& text) {
    const Outcome outcome = Shell(kExport + " --quiet --verify " + out().string());
    EXPECT_EQ(outcome.code, code) << outcome.text;
    EXPECT_NE(outcome.text.find(text), std::string::npos) << outcome.text;
  }
};

TEST_F(TamperedBundle, AChangedWeight) {
  std::fstream file(out() / "model.onnx.data", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(5000);
  file.put('\x55');
  file.close();
  ExpectRefused(5, "model.onnx.data: expected sha256");
}

TEST_F(TamperedBundle, AMissingByte) {
  fs::resize_file(out() / "model.onnx", fs::file_size(out() / "model.onnx") - 1);
  ExpectRefused(5, "model.onnx: expected ");
}

TEST_F(TamperedBundle, AMissingFile) {
  fs::remove(out() / "model.onnx.data");
  ExpectRefused(5, "model.onnx.data");
}

TEST_F(TamperedBundle, AnotherCachePolicy) {
  Json manifest = ReadJsonFile(out() / "manifest.json");
  manifest["cache"]["budget"]["values"][0][0] = 0.5;
  WriteJsonFile(out() / "manifest.json", manifest);
  ExpectRefused(5, "manifest.json: expected sha256");
  // Bundles of older versions have no hash of their manifest, but the graph knows the policy.
  manifest.erase("sha256");
  WriteJsonFile(out() / "manifest.json", manifest);
  ExpectRefused(5, "kvc.cache_sha256");
}

TEST_F(TamperedBundle, NoManifest) {
  fs::remove(out() / "manifest.json");
  ExpectRefused(6, "manifest.json");
}

}  // namespace
}  // namespace kvc
