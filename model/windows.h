#pragma once
// Windows of text as the streamed pass takes them.

#include <cstdint>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace kvc::model {

// Windows of equal length cut from documents: tokens of each document in turn, no special tokens,
// joined, then cut into `count` windows of `length`, spread evenly over what there is (seed-free).
// Throws kBadInput when the text gives fewer than one window, naming tokens found and needed; when
// it gives fewer than `count`, returns as many as there are.
[[nodiscard]] std::vector<std::vector<int32_t>> CutWindows(
    const Tokenizer& tokenizer,
    const std::vector<std::string>& documents,
    int64_t count,
    int64_t length);

}  // namespace kvc::model
