#pragma once
// Broken versions of a good file: what reads it takes them or refuses them with kvc::Error. Nothing
// else is thrown and nothing crashes, with the asan preset either.

#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/mutate.h"

namespace kvc::testing {

inline constexpr uint32_t kFuzzSeed = 20260607;
inline constexpr int kFuzzFiles = 300;

using Break = std::function<std::string(const std::string& good, std::mt19937& random)>;

// Runs `open` on `file` as it is and on kFuzzFiles versions of it that `broken` makes.
inline void FuzzFile(const std::filesystem::path& file,
                     const Break& broken,
                     const std::function<void()>& open) {
  const std::string good = ReadFile(file);
  ASSERT_NO_THROW(open());
  std::mt19937 random(kFuzzSeed);
  int refused = 0;
  for (int i = 0; i < kFuzzFiles; ++i) {
    // Not WriteFile, which waits for the disk.
    std::ofstream(file, std::ios::binary | std::ios::trunc) << broken(good, random);
    try {
      open();
    } catch (const Error& error) {
      EXPECT_NE(error.kind(), ErrorKind::kInternal) << "version " << i << ": " << error.what();
      ++refused;
    } catch (const std::exception& error) {
      ADD_FAILURE() << "version " << i << ": expected kvc::Error, got " << error.what();
    }
  }
  EXPECT_GT(refused, 0);
  WriteFile(file, good);
}

inline void FuzzBytes(const std::filesystem::path& file, const std::function<void()>& open) {
  FuzzFile(
      file, [](const std::string& good, std::mt19937& r) { return Mutated(good, r); }, open);
}

// Some value of a JSON file is another one, or gone.
inline void FuzzValues(const std::filesystem::path& file, const std::function<void()>& open) {
  const auto broken = [](const std::string& good, std::mt19937& random) {
    Json json = ParseJson(good, "good");
    MutateValue(json, random);
    return json.dump();
  };
  FuzzFile(file, broken, open);
}

}  // namespace kvc::testing
