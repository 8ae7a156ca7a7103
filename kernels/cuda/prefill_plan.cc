#include <algorithm>

#include "core/base/error.h"
#include "kernels/cuda/prefill_attention.h"

namespace kvc::cuda {
namespace {

bool Is16Bit(RowCode code) { return code == RowCode::kBF16 || code == RowCode::kF16; }

void CheckRows(const CachedRows& rows, int32_t most, const char* what, int index) {
  KVC_CHECK(rows.width >= 1 && rows.width <= most, kUnsupported,
            "prefill head {}: expected {} 1 to {} wide, got {}", index, what, most, rows.width);
  CheckPlainRows(rows, "rows of prefill head", static_cast<size_t>(index));
  const int64_t unit = Is16Bit(rows.code) ? 2 : 4;
  const auto address = reinterpret_cast<uintptr_t>(rows.data);
  KVC_CHECK(address % unit == 0 && rows.stride % unit == 0, kBadShape,
            "prefill head {}: expected {} at multiples of {} bytes, got address {:#x}, stride {}",
            index, what, unit, address, rows.stride);
}

bool HasLatents(const PrefillHead& head) { return head.latents.packed != nullptr; }

// Checks a head's keys and returns the columns that they take.
int32_t KeyColumns(const PrefillHead& head, int index) {
  if (!HasLatents(head)) {
    CheckRows(head.keys, kMostPrefillWidth, "keys", index);
    return head.keys.width;
  }
  const LatentKeys& how = head.latents;
  CheckRows(head.keys, how.rank, "latents", index);
  KVC_CHECK(
      how.places == LatentPlaces(how.width, how.rotation.half) && how.places <= kMostPrefillWidth,
      kUnsupported, "prefill head {}: expected keys of at most {} places, got {}", index,
      kMostPrefillWidth, how.places);
  return how.places;
}

// Blocks of a launch without splits.
int64_t UnitsOf(const PrefillPlan& plan, const PrefillChunk& chunk) {
  const int64_t tiles =
      (int64_t{chunk.tokens} * chunk.group + kPrefillQueries - 1) / kPrefillQueries;
  return tiles * plan.heads * PrefillPasses(plan);
}

}  // namespace

PrefillPlan PlanPrefill(const std::vector<PrefillHead>& heads) {
  PrefillPlan plan;
  plan.heads = static_cast<int32_t>(heads.size());
  plan.latents = !heads.empty() && HasLatents(heads[0]);
  plan.rows = heads.empty() ? RowCode::kF32 : heads[0].values.code;
  for (int i = 0; i < plan.heads; ++i) {
    const PrefillHead& head = heads[i];
    KVC_CHECK(HasLatents(head) == plan.latents, kBadShape,
              "prefill head {}: expected latents in all heads or in none, got both", i);
    CheckRows(head.values, kMostPrefillWidth, "values", i);
    plan.key_width = std::max(plan.key_width, KeyColumns(head, i));
    plan.value_width = std::max(plan.value_width, head.values.width);
    const bool alike =
        head.values.code == plan.rows && (plan.latents || head.keys.code == plan.rows);
    if (!alike) plan.rows = RowCode::kF32;
  }
  const bool wide = std::max(plan.key_width, plan.value_width) > 128;
  if (wide && plan.rows == RowCode::kF16) plan.rows = RowCode::kF32;
  const bool matrices = plan.latents ? plan.rows == RowCode::kBF16 : Is16Bit(plan.rows);
  if (!matrices) plan.rows = RowCode::kF32;
  return plan;
}

int32_t PrefillPasses(const PrefillPlan& plan) {
  return (plan.value_width + kPrefillColumns - 1) / kPrefillColumns;
}

PrefillRoomSize PrefillRoomOf(const PrefillPlan& plan, const PrefillChunk& chunk) {
  if (chunk.splits == 1) return {};
  const int64_t units = UnitsOf(plan, chunk);
  const int32_t columns = std::min(plan.value_width, kPrefillColumns);
  return {units * chunk.splits * kPrefillQueries * (columns + 2), units};
}

int32_t PrefillSplits(const PrefillPlan& plan, const PrefillChunk& chunk, int32_t blocks) {
  constexpr int64_t kFewestRows = 256;
  const int64_t units = std::max<int64_t>(1, UnitsOf(plan, chunk));
  const int64_t context = int64_t{chunk.first} + chunk.tokens;
  const int64_t rows =
      chunk.window > 0 ? std::min<int64_t>(context, chunk.window + chunk.tokens) : context;
  const int64_t splits = std::min(blocks / units, rows / kFewestRows);
  return static_cast<int32_t>(std::max<int64_t>(1, splits));
}

}  // namespace kvc::cuda
