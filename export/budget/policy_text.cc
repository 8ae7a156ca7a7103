#include "export/budget/policy_text.h"

#include <algorithm>

#include "core/cache/tier_list.h"

namespace kvc::budget {

NamedPolicy ParsePolicy(const std::string& text) {
  NamedPolicy named{text, {}};
  Policy& policy = named.policy;
  constexpr const char* kOption = "--policy";
  const size_t at = std::min(text.find('@'), text.size());
  const std::string head = text.substr(0, at);
  if (at < text.size()) {
    std::string_view tiers = std::string_view(text).substr(at + 1);
    constexpr std::string_view kPrompt = "prompt:";
    if (tiers.starts_with(kPrompt)) {
      policy.basis = TierBasis::kPrompt;
      tiers.remove_prefix(kPrompt.size());
    }
    const size_t plus = tiers.find('+');
    if (plus != std::string_view::npos) {
      policy.recent_format = RowFormatFromName(std::string(tiers.substr(plus + 1)));
      tiers = tiers.substr(0, plus);
    }
    policy.tiers = ParseTiers(tiers, kOption);
  }
  const size_t first = head.find('/');
  policy.method = MethodFromName(head.substr(0, first));
  if (first == std::string::npos) return named;
  const size_t second = head.find('/', first + 1);
  const size_t end = std::min(second, head.size());
  policy.scorer = ParseScorer(std::string_view(head).substr(first + 1, end - first - 1), kOption);
  if (second != std::string::npos) policy.loss = CurveLossFromName(head.substr(second + 1));
  return named;
}

}  // namespace kvc::budget
