#include "core/cache/cache_policy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/base/enum_names.h"

namespace kvc {
namespace {

constexpr std::array<std::pair<Method, std::string_view>, 9> kMethods = {{
    {Method::kFull, "full"},
    {Method::kStreaming, "streaming"},
    {Method::kUniform, "uniform"},
    {Method::kPyramid, "pyramid"},
    {Method::kAda, "ada"},
    {Method::kAdaModel, "ada-model"},
    {Method::kHeadKv, "headkv"},
    {Method::kLuKv, "lukv"},
    {Method::kLuKvMixed, "lukv-mixed"},
}};

constexpr std::array<std::pair<TierBasis, std::string_view>, 2> kBases = {{
    {TierBasis::kOffline, "offline"},
    {TierBasis::kPrompt, "prompt"},
}};

bool IsNarrow(const Tier& tier) {
  return tier.key_share < 1.0 || tier.value_share < 1.0 || tier.key_format.has_value() ||
         tier.value_format.has_value();
}

}  // namespace

std::string_view MethodName(Method method) { return EnumName(kMethods, method); }
Method MethodFromName(std::string_view name) { return EnumValue(kMethods, name, "--method"); }

int64_t TierWidth(int64_t width, double share) {
  return std::clamp<int64_t>(std::llround(static_cast<double>(width) * share), 1, width);
}

std::string_view TierBasisName(TierBasis basis) { return EnumName(kBases, basis); }
TierBasis TierBasisFromName(std::string_view name) { return EnumValue(kBases, name, "--basis"); }

bool InFewBits(const std::vector<Tier>& tiers) {
  return std::any_of(tiers.begin(), tiers.end(),
                     [](const Tier& tier) { return tier.key_format || tier.value_format; });
}

bool CachePolicy::has_narrow_tiers() const {
  return !full() && std::any_of(tiers.begin(), tiers.end(), IsNarrow);
}

}  // namespace kvc
