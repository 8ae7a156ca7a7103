#pragma once
// A fuzz target: a reader that must take bytes or refuse them with kvc::Error, whatever they are.
// Each is one source of a few lines:
//
//   KVC_FUZZ_TARGET(recipe) { (void)ReadRecipe(WrittenFile("recipe.json", bytes), {}); }
//
// With -DKVC_FUZZ=ON (clang) it becomes a libFuzzer program; elsewhere the seeds of
// tests/fuzz/seeds.txt and changed versions of them run through it in the tests
// (tests/fuzz/seeds_test.cc).

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "core/base/error.h"

namespace kvc::fuzz {

using Target = void (*)(std::string_view bytes);

// The targets that are linked in, by name.
inline std::map<std::string, Target>& Targets() {
  static std::map<std::string, Target> targets;
  return targets;
}

struct Registration {
  Registration(const char* name, Target target) { Targets()[name] = target; }
};

// Runs a target. Returns true when it took the bytes, false when it refused them; anything but
// kvc::Error, and an internal error, goes on.
inline bool Takes(Target target, std::string_view bytes) {
  try {
    target(bytes);
    return true;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) throw;
    return false;
  }
}

// A directory of this process, for readers of files. It is the same for every input.
inline std::filesystem::path Directory() {
  static const std::filesystem::path directory = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvc-fuzz-XXXXXX").string();
    KVC_CHECK(::mkdtemp(pattern.data()) != nullptr, kIo, "{}: expected a directory", pattern);
    return std::filesystem::path(pattern);
  }();
  return directory;
}

// Writes a file into that directory and returns its path.
std::filesystem::path WrittenFile(const char* name, std::string_view bytes);

}  // namespace kvc::fuzz

#ifdef KVC_FUZZ
#define KVC_FUZZ_ENTRY(name)                                                          \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {           \
    (void)kvc::fuzz::Takes(Fuzz_##name, {reinterpret_cast<const char*>(data), size}); \
    return 0;                                                                         \
  }
#else
#define KVC_FUZZ_ENTRY(name) \
  static const kvc::fuzz::Registration registration_##name(#name, Fuzz_##name);
#endif

#define KVC_FUZZ_TARGET(name)                      \
  static void Fuzz_##name(std::string_view bytes); \
  KVC_FUZZ_ENTRY(name)                             \
  static void Fuzz_##name(std::string_view bytes)
