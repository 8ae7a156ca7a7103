#pragma once
// Base64 (RFC 4648), in which tokenizer.json holds the table of a Precompiled normalizer.

#include <string>
#include <string_view>

namespace kvc::tokenizer {

// The bytes of a text. Throws kBadInput, naming `origin`, for a text that is not base64.
[[nodiscard]] std::string DecodeBase64(std::string_view text, const std::string& origin);

}  // namespace kvc::tokenizer
