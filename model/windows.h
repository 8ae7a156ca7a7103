#pragma once
// Windows of text as the streamed pass takes them.

#include <cstdint>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace kvc::model {

// Cuts windows of equal length from documents: the tokens of each document in turn, without special
// tokens, are joined and cut into `count` windows of `length`, spread evenly over the text (no
// seed). Throws kBadInput when the text gives fewer than one window, naming the tokens found and
// needed. When it gives fewer than `count`, returns as many as there are.
[[nodiscard]] std::vector<std::vector<int32_t>> CutWindows(
    const Tokenizer& tokenizer,
    const std::vector<std::string>& documents,
    int64_t count,
    int64_t length);

}  // namespace kvc::model
