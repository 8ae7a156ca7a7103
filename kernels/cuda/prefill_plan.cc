#include <algorithm>

#include "core/base/error.h"
#include "kernels/cuda/prefill_attention.h"

namespace kvc::cuda {
namespace {

bool Is16Bit(RowCode code) { return code == RowCode::kBF16 || code == RowCode::kF16; }

void CheckRows(const CachedRows& rows, const char* what, int index) {
  KVC_CHECK(rows.width >= 1 && rows.width <= kMostPrefillWidth, kUnsupported,
            "prefill head {}: expected {} 1 to {} wide, got {}", index, what, kMostPrefillWidth,
            rows.width);
  const int64_t unit = Is16Bit(rows.code) ? 2 : 4;
  const auto address = reinterpret_cast<uintptr_t>(rows.data);
  KVC_CHECK(address % unit == 0 && rows.stride % unit == 0, kBadShape,
            "prefill head {}: expected {} at multiples of {} bytes, got address {:#x}, stride {}",
            index, what, unit, address, rows.stride);
}

}  // namespace

PrefillPlan PlanPrefill(const std::vector<PrefillHead>& heads) {
  PrefillPlan plan;
  plan.heads = static_cast<int32_t>(heads.size());
  plan.rows = heads.empty() ? RowCode::kF32 : heads[0].keys.code;
  for (int i = 0; i < plan.heads; ++i) {
    const PrefillHead& head = heads[i];
    CheckRows(head.keys, "keys", i);
    CheckRows(head.values, "values", i);
    plan.key_width = std::max(plan.key_width, head.keys.width);
    plan.value_width = std::max(plan.value_width, head.values.width);
    if (head.keys.code != plan.rows || head.values.code != plan.rows) {
      plan.rows = RowCode::kF32;
    }
  }
  if (!Is16Bit(plan.rows)) {
    plan.rows = RowCode::kF32;
  }
  return plan;
}

}  // namespace kvc::cuda
