#include "core/cache/scorer_spec.h"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>
#include <vector>

#include "core/base/enum_names.h"

namespace kvc {
namespace {

constexpr std::array<std::pair<ScorerKind, std::string_view>, 6> kScorers = {{
    {ScorerKind::kSnapKv, "snapkv"},
    {ScorerKind::kExpectedAttention, "expected-attention"},
    {ScorerKind::kKeyDiff, "keydiff"},
    {ScorerKind::kKnorm, "knorm"},
    {ScorerKind::kStreaming, "streaming"},
    {ScorerKind::kOutputError, "output-error"},
}};

// Both return false for a text that is not such a value.
template <class Number>
bool ParseNumber(std::string_view text, Number least, Number& value) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  if (!(number >= least) || !std::isfinite(static_cast<double>(number))) return false;
  value = number;
  return true;
}
bool ParseChoice(std::string_view text, std::string_view no, std::string_view yes, bool& value) {
  if (text != no && text != yes) return false;
  value = text == yes;
  return true;
}

std::string NumberText(double value) {
  std::array<char, 32> buffer{};
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), end};
}

// One key of a scorer: what its value may be, how it is read and, when it is not the default,
// written.
struct Option {
  std::string_view key;
  std::string_view values;
  std::vector<ScorerKind> kinds;
  bool (*parse)(std::string_view text, ScorerOptions& options);
  std::string (*print)(const ScorerOptions& options);  // empty: the default
};

const std::vector<Option>& Options() {
  using enum ScorerKind;
  static const std::vector<Option> options = {
      {"pool",
       "an odd width",
       {kSnapKv, kOutputError},
       [](std::string_view text, ScorerOptions& o) {
         return ParseNumber<int64_t>(text, 1, o.pool) && o.pool % 2 == 1;
       },
       [](const ScorerOptions& o) { return o.pool == 0 ? "" : std::to_string(o.pool); }},
      {"future",
       "1 or more positions",
       {kExpectedAttention, kOutputError},
       [](std::string_view text, ScorerOptions& o) {
         return ParseNumber<int64_t>(text, 1, o.future);
       },
       [](const ScorerOptions& o) {
         return o.future == ScorerOptions{}.future ? "" : std::to_string(o.future);
       }},
      {"epsilon",
       "0 or more",
       {kExpectedAttention},
       [](std::string_view text, ScorerOptions& o) { return ParseNumber(text, 0.0, o.epsilon); },
       [](const ScorerOptions& o) {
         return o.epsilon == ScorerOptions{}.epsilon ? "" : NumberText(o.epsilon);
       }},
      {"covariance",
       "no or yes",
       {kExpectedAttention},
       [](std::string_view text, ScorerOptions& o) {
         return ParseChoice(text, "no", "yes", o.use_covariance);
       },
       [](const ScorerOptions& o) { return std::string(o.use_covariance ? "" : "no"); }},
      {"reduce",
       "max or mean",
       {kOutputError},
       [](std::string_view text, ScorerOptions& o) {
         return ParseChoice(text, "max", "mean", o.mean);
       },
       [](const ScorerOptions& o) { return std::string(o.mean ? "mean" : ""); }},
      {"relative",
       "no or yes",
       {kOutputError},
       [](std::string_view text, ScorerOptions& o) {
         return ParseChoice(text, "no", "yes", o.relative);
       },
       [](const ScorerOptions& o) { return std::string(o.relative ? "" : "no"); }},
      {"prompt",
       "0 or more queries",
       {kOutputError},
       [](std::string_view text, ScorerOptions& o) {
         return ParseNumber<int64_t>(text, 0, o.prompt);
       },
       [](const ScorerOptions& o) { return o.prompt == 0 ? "" : std::to_string(o.prompt); }},
      {"recent",
       "a share below 1",
       {kOutputError},
       [](std::string_view text, ScorerOptions& o) {
         return ParseNumber(text, 0.0, o.recent) && o.recent < 1.0;
       },
       [](const ScorerOptions& o) {
         return o.recent == ScorerOptions{}.recent ? "" : NumberText(o.recent);
       }},
      {"keydiff",
       "a share below 1",
       {kOutputError},
       [](std::string_view text, ScorerOptions& o) {
         return ParseNumber(text, 0.0, o.keydiff) && o.keydiff < 1.0;
       },
       [](const ScorerOptions& o) { return o.keydiff == 0.0 ? "" : NumberText(o.keydiff); }},
  };
  return options;
}

bool Has(const Option& option, ScorerKind kind) {
  for (const ScorerKind k : option.kinds) {
    if (k == kind) return true;
  }
  return false;
}

void SetOption(std::string_view text, const char* name, ScorerSpec& spec) {
  const size_t equals = text.find('=');
  const std::string_view key = text.substr(0, equals);
  std::string known;
  for (const Option& option : Options()) {
    if (!Has(option, spec.kind)) continue;
    known += (known.empty() ? "" : ", ") + std::string(option.key);
    if (option.key != key) continue;
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : text.substr(equals + 1);
    KVC_CHECK(option.parse(value, spec.options), kUsage, "{}: {}: {}: expected {}, got \"{}\"",
              name, ScorerName(spec.kind), key, option.values, value);
    return;
  }
  KVC_THROW(kUsage, "{}: {}: expected {}, got \"{}\"", name, ScorerName(spec.kind),
            known.empty() ? "no options" : "KEY=VALUE with one of " + known, text);
}

}  // namespace

std::string_view ScorerName(ScorerKind kind) { return EnumName(kScorers, kind); }
ScorerKind ScorerFromName(std::string_view name) { return EnumValue(kScorers, name, "--scorer"); }

int64_t DefaultPool(ScorerKind kind) { return kind == ScorerKind::kOutputError ? 11 : 7; }

ScorerSpec ParseScorer(std::string_view text, const char* option) {
  const size_t colon = text.find(':');
  ScorerSpec spec(EnumValue(kScorers, text.substr(0, colon), option));
  if (colon == std::string_view::npos) return spec;
  std::string_view rest = text.substr(colon + 1);
  while (true) {
    const size_t comma = rest.find(',');
    SetOption(rest.substr(0, comma), option, spec);
    if (comma == std::string_view::npos) break;
    rest = rest.substr(comma + 1);
  }
  if (spec.options.pool == DefaultPool(spec.kind)) spec.options.pool = 0;
  return spec;
}

std::string ToString(const ScorerSpec& spec) {
  std::string text(ScorerName(spec.kind));
  char separator = ':';
  for (const Option& option : Options()) {
    if (!Has(option, spec.kind)) continue;
    const std::string value = option.print(spec.options);
    if (value.empty()) continue;
    text += separator + std::string(option.key) + "=" + value;
    separator = ',';
  }
  return text;
}

}  // namespace kvc
