// The seeds of the fuzzers and changed versions of them run through every target, without
// libFuzzer: what a fuzzer found stays found.

#include <chrono>
#include <fstream>
#include <random>
#include <sstream>
#include <vector>

#include <glob.h>
#include <gtest/gtest.h>

#include "core/io/files.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/mutate.h"
#include "tests/support/paths.h"

namespace kvc::fuzz {
namespace {

constexpr uint32_t kSeed = 20261130;
constexpr int kChanged = 300;  // at most, of each target
constexpr std::chrono::seconds kPatience(2);

std::vector<std::string> Matching(const std::string& pattern) {
  glob_t found{};
  const std::string path = (testing::SourceRoot() / pattern).string();
  std::vector<std::string> files;
  if (::glob(path.c_str(), 0, nullptr, &found) == 0) {
    files.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  ::globfree(&found);
  return files;
}

// Target -> contents of its seeds.
std::map<std::string, std::vector<std::string>> ReadSeeds() {
  std::map<std::string, std::vector<std::string>> seeds;
  std::ifstream lines(testing::SourceRoot() / "tests/fuzz/seeds.txt");
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with('#')) continue;
    std::istringstream words(line);
    std::string target;
    std::string pattern;
    words >> target >> pattern;
    const std::vector<std::string> files = Matching(pattern);
    EXPECT_FALSE(files.empty()) << line;
    for (const std::string& file : files) seeds[target].push_back(ReadFile(file));
  }
  return seeds;
}

TEST(Fuzz, EverySeedAndChangedOnesAreTakenOrRefused) {
  const auto seeds = ReadSeeds();
  for (const auto& [name, target] : Targets()) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(seeds.contains(name)) << "tests/fuzz/seeds.txt has no line for it";
    const std::vector<std::string>& contents = seeds.at(name);
    for (const std::string& content : contents) Takes(target, content);
    std::mt19937 random(kSeed);
    const auto end = std::chrono::steady_clock::now() + kPatience;
    for (int i = 0; i < kChanged && std::chrono::steady_clock::now() < end; ++i) {
      const std::string& seed = contents[testing::Below(random, contents.size())];
      Takes(target, testing::Mutated(seed, random));
    }
  }
}

TEST(Fuzz, EverySeedHasATarget) {
  for (const auto& [name, contents] : ReadSeeds()) EXPECT_TRUE(Targets().contains(name)) << name;
}

}  // namespace
}  // namespace kvc::fuzz
