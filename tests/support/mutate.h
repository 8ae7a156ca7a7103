#pragma once
// Broken files for fuzz tests, the same ones in every run.

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/io/json.h"

namespace kvc::testing {

inline size_t Below(std::mt19937& random, size_t limit) { return random() % limit; }

// Changes, inserts, removes or repeats some bytes.
inline std::string Mutated(std::string bytes, std::mt19937& random) {
  for (size_t n = 1 + Below(random, 4); n > 0 && !bytes.empty(); --n) {
    const size_t at = Below(random, bytes.size());
    const size_t length = std::min(bytes.size() - at, 1 + Below(random, 40));
    switch (random() % 5) {
      case 0:
        bytes[at] = static_cast<char>(random() % 256);
        break;
      case 1:
        bytes[at] = "\"{}[]:,0-\\"[Below(random, 10)];
        break;
      case 2:
        bytes.erase(at, length);
        break;
      case 3:
        bytes.insert(Below(random, bytes.size()), bytes.substr(at, length));
        break;
      default:
        bytes.resize(at);
        break;
    }
  }
  return bytes;
}

// Replaces or removes a value somewhere in the tree.
inline void MutateValue(Json& json, std::mt19937& random) {
  Json* at = &json;
  while (at->is_structured() && !at->empty() && random() % 4 != 0) {
    auto child = at->begin();
    std::advance(child, static_cast<ptrdiff_t>(Below(random, at->size())));
    at = &*child;
  }
  static const std::vector<Json> kValues = {nullptr,
                                            true,
                                            -1,
                                            4000000000U,
                                            1e300,
                                            std::numeric_limits<int64_t>::min(),
                                            std::numeric_limits<uint64_t>::max(),
                                            1.5,
                                            "",
                                            "x",
                                            "\u2581",
                                            Json::array(),
                                            Json::object(),
                                            Json::array({1, "a"}),
                                            "Sequence",
                                            "Split",
                                            "Regex",
                                            "(",
                                            "a{2,1}",
                                            "<unk>"};
  *at = kValues[Below(random, kValues.size())];
}

}  // namespace kvc::testing
