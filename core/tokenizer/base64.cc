#include "core/tokenizer/base64.h"

#include <cstdint>

#include "core/base/error.h"

namespace kvc::tokenizer {

std::string DecodeBase64(std::string_view text, const std::string& origin) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  KVC_CHECK(text.size() % 4 == 0, kBadInput,
            "{}: expected base64 in groups of 4, got {} characters", origin, text.size());
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  const size_t padding = text.ends_with("==") ? 2 : (text.ends_with('=') ? 1 : 0);
  text.remove_suffix(padding);
  uint32_t bits = 0;
  int count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit = kDigits.find(text[i]);
    KVC_CHECK(digit != std::string_view::npos, kBadInput,
              "{}: expected base64, got another character at offset {}", origin, i);
    bits = (bits << 6) | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>((bits >> count) & 0xFFU);
  }
  return bytes;
}

}  // namespace kvc::tokenizer
