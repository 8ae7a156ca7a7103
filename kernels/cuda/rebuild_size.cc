#include <algorithm>

#include "core/base/error.h"
#include "kernels/cuda/rebuild_keys.h"

namespace kvc::cuda {
namespace {

void CheckRows(const CachedRows& rows, const char* what, size_t number) {
  const int64_t unit = rows.code == RowCode::kF16 || rows.code == RowCode::kBF16 ? 2 : 4;
  const int64_t bytes = CachedRowBytes(rows.code, rows.width);
  const auto address = reinterpret_cast<uintptr_t>(rows.data);
  KVC_CHECK(address % unit == 0 && rows.stride % unit == 0 && rows.stride >= bytes, kBadShape,
            "key rebuild {}: expected {} at multiples of {} bytes and at least {} apart, got "
            "address {:#x}, stride {}",
            number, what, unit, bytes, address, rows.stride);
}

void CheckRebuild(const KeyRebuild& rebuild, size_t number) {
  KVC_CHECK(rebuild.keys.width >= 1 && rebuild.keys.width <= kMostRebuiltWidth, kUnsupported,
            "key rebuild {}: expected keys 1 to {} wide, got {}", number, kMostRebuiltWidth,
            rebuild.keys.width);
  const LatentKeys& how = rebuild.how;
  KVC_CHECK(rebuild.latents.width >= 1 && rebuild.latents.width <= how.rank, kBadShape,
            "key rebuild {}: expected latents 1 to {} wide, got {}", number, how.rank,
            rebuild.latents.width);
  KVC_CHECK(
      how.width == rebuild.keys.width && how.places == LatentPlaces(how.width, how.rotation.half),
      kBadShape, "key rebuild {}: expected keys {} wide, got {} in {} places", number,
      rebuild.keys.width, how.width, how.places);
  KVC_CHECK(rebuild.rows >= 0, kBadShape, "key rebuild {}: expected 0 rows or more, got {}", number,
            rebuild.rows);
  CheckRows(rebuild.latents, "latents", number);
  CheckRows(rebuild.keys, "keys", number);
}

}  // namespace

int32_t MostRows(const std::vector<KeyRebuild>& rebuilds) {
  int32_t most = 0;
  for (size_t i = 0; i < rebuilds.size(); ++i) {
    CheckRebuild(rebuilds[i], i);
    most = std::max(most, rebuilds[i].rows);
  }
  return most;
}

}  // namespace kvc::cuda
