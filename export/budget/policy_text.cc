#include "export/budget/policy_text.h"

#include <algorithm>

#include "core/cache/tier_list.h"

namespace kvc::budget {

void ParsePolicy(const std::string& text, PlanRequest& request) {
  constexpr const char* kOption = "--policy";
  const size_t at = std::min(text.find('@'), text.size());
  const std::string head = text.substr(0, at);
  if (at < text.size()) {
    std::string_view tiers = std::string_view(text).substr(at + 1);
    constexpr std::string_view kPrompt = "prompt:";
    if (tiers.starts_with(kPrompt)) {
      request.basis = TierBasis::kPrompt;
      tiers.remove_prefix(kPrompt.size());
    }
    request.tiers = ParseTiers(tiers, kOption);
  }
  const size_t first = head.find('/');
  request.method = MethodFromName(head.substr(0, first));
  if (first == std::string::npos) return;
  const size_t second = head.find('/', first + 1);
  const size_t end = std::min(second, head.size());
  request.scorer = ParseScorer(std::string_view(head).substr(first + 1, end - first - 1), kOption);
  if (second != std::string::npos) request.loss = CurveLossFromName(head.substr(second + 1));
}

}  // namespace kvc::budget
