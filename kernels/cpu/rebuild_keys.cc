#include "core/error.h"
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
  RebuildTile(latents, 0, positions, rebuild, PackRebuild(rebuild), keys);
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(Rebuild);

void RebuildKeys(const RowBlock& latents,
                 std::span<const int32_t> positions,
                 const KeyRebuild& rebuild,
                 MatrixF keys) {
  CheckRows(latents, {nullptr, latents.dtype, latents.rows, 0, 0}, &rebuild, keys.cols, 0);
  KVC_CHECK(keys.rows == latents.rows && static_cast<int64_t>(positions.size()) == latents.rows,
            kBadShape,
            "key rebuild: expected a position and a key row for each latent, got ",
            latents.rows,
            " latents, ",
            positions.size(),
            " positions, ",
            keys.rows,
            " rows");
  HWY_DYNAMIC_DISPATCH(Rebuild)(latents, positions.data(), rebuild, keys);
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
