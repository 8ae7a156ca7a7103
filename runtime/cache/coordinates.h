#pragma once
// Coordinates in which a layer with narrow tiers stores its rows (core/cache/cache_bases.h): either
// the bundle's calibrated bases, or the principal axes of a prompt, kept as reflectors on the
// device. The arithmetic is a backend's (runtime/cpu/head_basis.h).

#include <cstdint>
#include <vector>

#include "core/cache/cache_bases.h"
#include "core/cache/cache_spec.h"
#include "runtime/device.h"

namespace kvc::runtime {

// Where one head's basis of keys, or of values, stands.
struct BasisPlace {
  int64_t width = 0;   // D; 0: rows are stored as they are
  int64_t rows = 0;    // r reflectors [r, D]; 0 with a calibrated basis
  int64_t offset = 0;  // their first float in the reflectors' buffer
};

// The bases of a layer's kv heads. Move-only.
class LayerCoordinates {
 public:
  // Calibrated ones, which must outlive the object. `groups`: the layer's.
  LayerCoordinates(const LayerBases& bases, const std::vector<CacheGroup>& groups);
  // Room for those of a prompt, metered; Backend::FindCoordinates makes them.
  LayerCoordinates(const CacheSpec& spec, int64_t layer, Device& device, CacheMeter& meter);
  [[nodiscard]] LayerCoordinates Clone(CacheMeter& meter) const;
  // The same on another device, but for the reflectors themselves.
  [[nodiscard]] LayerCoordinates WithRoomOn(Device& device, CacheMeter& meter) const;

  [[nodiscard]] const BasisPlace& keys(int64_t head) const { return keys_[head]; }
  [[nodiscard]] const BasisPlace& values(int64_t head) const { return values_[head]; }
  // Null for those of a prompt.
  [[nodiscard]] const LayerBases* calibrated() const { return calibrated_; }
  // Of a prompt: the keys' reflectors of head 0, its values', ...
  [[nodiscard]] const Buffer& reflectors() const { return reflectors_; }

 private:
  LayerCoordinates() = default;

  // [G]; of no width where keys are latents as they are; heads of one latent have the same.
  std::vector<BasisPlace> keys_;
  std::vector<BasisPlace> values_;  // [G]
  const LayerBases* calibrated_ = nullptr;
  Buffer reflectors_;
};

}  // namespace kvc::runtime
