// profile.json and profile.safetensors of a profile, one behind the other: the first byte that ends
// the outermost object separates them.

#include <fstream>

#include "core/cache/profile_file.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(profile) {
  const size_t split = bytes.find("\n}\n");
  const size_t end = split == std::string_view::npos ? bytes.size() : split + 3;
  kvc::fuzz::WrittenFile("profile.json", bytes.substr(0, end));
  kvc::fuzz::WrittenFile("profile.safetensors", bytes.substr(end));
  (void)kvc::ReadProfile(kvc::fuzz::Directory());
}
