#include "core/tokenizer/regex.h"

#include <array>
#include <utility>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace kvc::tokenizer {
namespace {

std::string ErrorText(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// Bytes that a match may need beyond the 32 KiB which PCRE2 takes from the machine's stack.
constexpr size_t kJitStackStart = 64 << 10;
constexpr size_t kJitStackLimit = 8 << 20;

}  // namespace

struct Regex::Compiled {
  Compiled(pcre2_code* compiled_code, std::string where)
      : code(compiled_code), origin(std::move(where)) {}
  ~Compiled() { pcre2_code_free(code); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;

  pcre2_code* code;
  std::string origin;
};

Regex::Regex(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
Regex::Regex(std::string_view expression, const std::string& origin)
    : compiled_(Compile(TranslateRegex(expression, origin), false, origin)) {}
Regex Regex::Literal(std::string_view text, const std::string& origin) {
  return Regex(Compile(std::string(text), true, origin));
}
Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

std::unique_ptr<Regex::Compiled> Regex::Compile(const std::string& pattern,
                                                bool literal,
                                                const std::string& origin) {
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  KVC_CHECK(context != nullptr, kInternal, "{}: PCRE2: no memory", origin);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  const uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP);
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                       options, &code, &offset, context.get());
  KVC_CHECK(compiled != nullptr, kBadInput,
            "{}: expected a regular expression, got \"{}\": {} at byte {}", origin, pattern,
            ErrorText(code), offset);
  auto owner = std::make_unique<Compiled>(compiled, origin);
  // Without a JIT for this machine pcre2_match interprets: slower, same result.
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
  return owner;
}

struct RegexScanner::State {
  explicit State(const pcre2_code* code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackLimit, nullptr)) {
    // Without a stack of its own the JIT takes 32 KiB of the machine's.
    if (context != nullptr && stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

RegexScanner::RegexScanner(const Regex& regex)
    : compiled_(*regex.compiled_), state_(std::make_unique<State>(regex.compiled_->code)) {
  KVC_CHECK(state_->data != nullptr && state_->context != nullptr, kInternal,
            "{}: PCRE2: no memory", compiled_.origin);
}
RegexScanner::~RegexScanner() = default;

void RegexScanner::ForEachMatch(std::string_view text,
                                const std::function<void(ByteRange)>& found) const {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state_->data);
  size_t position = 0;
  size_t last_end = std::string_view::npos;
  while (position <= text.size()) {
    const int count = pcre2_match(compiled_.code, subject, text.size(), position,
                                  PCRE2_NO_UTF_CHECK, state_->data, state_->context);
    if (count == PCRE2_ERROR_NOMATCH) return;
    KVC_CHECK(count >= 0, kBadInput, "{}: regular expression on the text at byte {}: {}",
              compiled_.origin, position, ErrorText(count));
    const ByteRange match{offsets[0], offsets[1]};
    if (match.begin == match.end && match.end == last_end) {
      position += last_end < text.size() ? CharacterBytes(text[last_end]) : 1;
      continue;
    }
    found(match);
    position = match.end;
    last_end = match.end;
  }
}

std::string RegexScanner::ReplaceAll(std::string_view text, std::string_view content) const {
  std::string replaced;
  replaced.reserve(text.size());
  size_t done = 0;
  ForEachMatch(text, [&](ByteRange match) {
    replaced += text.substr(done, match.begin - done);
    replaced += content;
    done = match.end;
  });
  return replaced += text.substr(done);
}

}  // namespace kvc::tokenizer
