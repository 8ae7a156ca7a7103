#include <algorithm>
#include <span>

#include "core/base/error.h"
#include "kernels/attention.h"
#include "kernels/cpu/attention_checks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rebuild_keys.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/key_rebuild-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

void Rebuild(const RowBlock& latents,
             const int32_t* positions,
             const KeyRebuild& rebuild,
             MatrixF keys) {
  float* columns = Scratch(ScratchUse::kKeys, keys.cols * kPanel);
  for (int64_t row = 0; row < keys.rows; row += kPanel) {
    const int64_t rows = std::min(kPanel, keys.rows - row);
    RebuildPanel(LayOutLatents(latents, row, rows, rebuild.rebuild.cols),
                 LayOutAngles(positions + row, rows, rebuild), rebuild, columns);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t d = 0; d < keys.cols; ++d) {
        keys(row + r, d) = columns[d * kPanel + r];
      }
    }
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(Rebuild);

UnitRows FindUnitRows(ConstMatrixF b) {
  UnitRows units;
  bool any = false;
  for (int64_t d = 0; d < b.rows; ++d) {
    const std::span<const float> row(b.row(d), static_cast<size_t>(b.cols));
    const auto one = std::ranges::find(row, 1.0F);
    const bool unit = one != row.end() && std::ranges::count(row, 0.0F) == b.cols - 1;
    any = any || unit;
    units.column.push_back(unit ? static_cast<int32_t>(one - row.begin()) : -1);
    if (!unit) {
      units.others.insert(units.others.end(), row.begin(), row.end());
    }
  }
  return any ? units : UnitRows();
}

void RebuildKeys(const RowBlock& latents,
                 std::span<const int32_t> positions,
                 const KeyRebuild& rebuild,
                 MatrixF keys) {
  RowBlock no_values;
  no_values.rows = latents.rows;
  CheckRows(latents, no_values, &rebuild, keys.cols, 0);
  KVC_CHECK(keys.rows == latents.rows && static_cast<int64_t>(positions.size()) == latents.rows,
            kBadShape,
            "key rebuild: expected a position and a key row for each latent, got {} latents, {} "
            "positions, {} rows",
            latents.rows, positions.size(), keys.rows);
  HWY_DYNAMIC_DISPATCH(Rebuild)(latents, positions.data(), rebuild, keys);
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
