#include "pipeline/report/escape.h"

#include <cstdint>
#include <span>

#include "core/io/files.h"
#include "core/io/markup.h"

namespace kvc::report {
namespace {

uint32_t HexDigit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

// Returns the base64 of bytes that are given in hexadecimal.
std::string Base64OfHex(std::string_view hex) {
  constexpr const char* kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < hex.size(); at += 6) {  // 3 bytes are 4 digits
    uint32_t bits = 0;
    for (size_t i = 0; i < 6; ++i) {
      bits = bits << 4 | (at + i < hex.size() ? HexDigit(hex[at + i]) : 0);
    }
    const size_t bytes = std::min<size_t>(3, (hex.size() - at) / 2);
    for (size_t i = 0; i < 4; ++i) text += i <= bytes ? kDigits[bits >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    const std::string_view entity = c == '\'' ? "&#39;" : MarkupEntity(c);
    if (entity.empty()) {
      escaped += c;
    } else {
      escaped += entity;
    }
  }
  return escaped;
}

std::string EscapeScriptJson(std::string_view json) {
  std::string escaped;
  for (const char c : json) {
    if (c == '<') {
      escaped += "\\u003c";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string ScriptHash(std::string_view script) {
  return "'sha256-" + Base64OfHex(Sha256(std::as_bytes(std::span(script)))) + "'";
}

}  // namespace kvc::report
