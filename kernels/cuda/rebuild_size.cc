#include <algorithm>

#include "core/base/error.h"
#include "kernels/cuda/rebuild_keys.h"

namespace kvc::cuda {
namespace {

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
  CheckPlainRows(rebuild.latents, "latents of key rebuild", number);
  CheckCachedRows(rebuild.latents, "latents of key rebuild", number);
  CheckCachedRows(rebuild.keys, "keys of key rebuild", number);
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
