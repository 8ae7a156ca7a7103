#pragma once
// Which scorer ranks cached tokens, and its options, as one text: `snapkv`, `output-error:pool=15`,
// `output-error:reduce=mean,keydiff=0.3`. The text stands in command lines, manifests and profiles.

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace kvc {

enum class ScorerKind { kSnapKv, kExpectedAttention, kKeyDiff, kKnorm, kStreaming, kOutputError };
[[nodiscard]] std::string_view ScorerName(ScorerKind kind);  // "snapkv", "expected-attention", ...
[[nodiscard]] ScorerKind ScorerFromName(std::string_view name);  // throws kUsage

// A scorer reads its own options alone (scorers/factories.h says what they do).
struct ScorerOptions {
  int64_t pool = 0;            // snapkv, output-error: width of the max-pool; 0: DefaultPool
  int64_t future = 512;        // expected-attention, output-error: coming positions looked at
  double epsilon = 0.02;       // expected-attention: added before weighting by |v|
  bool use_covariance = true;  // expected-attention: `covariance`
  bool mean = false;           // output-error: `reduce` over queries and heads, max or mean
  bool relative = true;        // output-error: to the residual stream's squared norm
  int64_t prompt = 0;          // output-error: queries of the prompt that are expected again
  double recent = 0.2;         // with them: share of the tokens that the window's queries choose
  double keydiff = 0.0;        // output-error: share of the tokens that KeyDiff chooses

  friend auto operator<=>(const ScorerOptions&, const ScorerOptions&) = default;
};

// Width of a scorer's max-pool over tokens where none is asked for.
[[nodiscard]] int64_t DefaultPool(ScorerKind kind);

struct ScorerSpec {
  ScorerKind kind = ScorerKind::kSnapKv;
  ScorerOptions options = {};

  ScorerSpec() = default;
  ScorerSpec(ScorerKind k, ScorerOptions o = {})  // NOLINT(google-explicit-constructor)
      : kind(k), options(o) {}
  friend auto operator<=>(const ScorerSpec&, const ScorerSpec&) = default;
};

// NAME or NAME:KEY=VALUE,...  Throws kUsage naming `option` for an unknown scorer, for a key that
// the scorer does not have (listing those that it has) and for a value that is not one.
[[nodiscard]] ScorerSpec ParseScorer(std::string_view text, const char* option);
// The text of a spec: options that differ from the default only, always in the same order.
[[nodiscard]] std::string ToString(const ScorerSpec& spec);

}  // namespace kvc
