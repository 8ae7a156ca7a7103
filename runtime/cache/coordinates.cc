#include "runtime/cache/coordinates.h"

namespace kvc::runtime {

LayerCoordinates::LayerCoordinates(const LayerBases& bases, const std::vector<CacheGroup>& groups)
    : keys_(static_cast<size_t>(bases.num_kv_heads)),
      values_(static_cast<size_t>(bases.num_kv_heads)),
      calibrated_(&bases) {
  for (const CacheGroup& group : groups) {
    for (const int64_t head : group.heads) {
      values_[head].width = group.value_width;
      if (bases.key_width > 0) keys_[head].width = group.key_width;
    }
  }
}

LayerCoordinates::LayerCoordinates(const CacheSpec& spec,
                                   int64_t layer,
                                   Device& device,
                                   CacheMeter& meter)
    : keys_(static_cast<size_t>(spec.num_kv_heads)),
      values_(static_cast<size_t>(spec.num_kv_heads)) {
  int64_t bytes = 0;
  int64_t next = 0;
  const auto take = [&next](int64_t rows, int64_t width) {
    const BasisPlace place = {width, rows, next};
    next += rows * width;
    return place;
  };
  for (const CacheGroup& group : spec.layers[layer]) {
    bytes += BasisBytes(spec, group);
    const NarrowWidths widths = WidestNarrow(spec, group);
    for (const int64_t head : group.heads) {
      if (!group.keeps_positions) keys_[head] = take(widths.key, group.key_width);
      values_[head] = take(widths.value, group.value_width);
    }
  }
  reflectors_ = Buffer(bytes, device, &meter);
}

LayerCoordinates LayerCoordinates::WithRoomOn(Device& device, CacheMeter& meter) const {
  LayerCoordinates copy = LayerCoordinates();
  copy.keys_ = keys_;
  copy.values_ = values_;
  copy.calibrated_ = calibrated_;
  copy.reflectors_ = Buffer(reflectors_.bytes(), device, &meter);
  return copy;
}

LayerCoordinates LayerCoordinates::Clone(CacheMeter& meter) const {
  LayerCoordinates copy = LayerCoordinates();
  copy.keys_ = keys_;
  copy.values_ = values_;
  copy.calibrated_ = calibrated_;
  if (reflectors_.bytes() > 0) {
    copy.reflectors_ = Buffer(reflectors_.bytes(), *reflectors_.device(), &meter);
    reflectors_.device()->Copy(reflectors_, 0, copy.reflectors_, 0, reflectors_.bytes());
  }
  return copy;
}

}  // namespace kvc::runtime
