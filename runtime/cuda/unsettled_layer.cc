#include "runtime/cuda/unsettled_layer.h"

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "runtime/cuda/device_memory.h"

namespace kvc::runtime {
namespace {

// Where one layer's news land on the host.
struct Landing {
  explicit Landing(LayerCache& layer)
      : store(&layer),
        chosen(static_cast<size_t>(UnsettledOf(layer).chosen.bytes()) / sizeof(int32_t)),
        best(chosen.size()) {}

  LayerCache* store;
  std::vector<int32_t> chosen;
  std::vector<float> best;
  int32_t faults = 0;
};

template <class T>
void Download(const Buffer& from, T* to, CudaDevice& device) {
  if (from.bytes() == 0) return;
  cuda::CopyToHost(to, DeviceMemory::Of(from), static_cast<size_t>(from.bytes()), device.stream());
}

// A prompt's rows are at the positions of their numbers.
void SettleTiers(const Landing& landing) {
  size_t next = 0;
  for (GroupCache& group : landing.store->groups) {
    CacheBlock& tier = group.tiers.at(0);
    const auto rows = static_cast<size_t>(tier.rows());
    tier.Settled(std::span(landing.chosen).subspan(next, rows),
                 std::span(landing.best).subspan(next, rows));
    next += rows;
  }
}

}  // namespace

UnsettledLayer& UnsettledOf(LayerCache& layer) {
  if (layer.unsettled == nullptr) layer.unsettled = std::make_unique<UnsettledLayer>();
  auto* own = dynamic_cast<UnsettledLayer*>(layer.unsettled.get());
  KVC_CHECK(own != nullptr, kInternal, "cuda: expected its own news of a layer, got another's");
  return *own;
}

void DownloadEnergy(LayerCache& layer, CudaDevice& device) {
  if (layer.unsettled == nullptr) return;
  Buffer& energy = UnsettledOf(layer).energy;
  Download(energy, &layer.residual_energy, device);
  energy = Buffer();
}

void SettleOnDevice(SequenceCache& cache, CudaDevice& device) {
  std::vector<Landing> landings;
  for (int64_t l = 0; l < cache.spec().num_layers(); ++l) {
    if (cache.layer(l).unsettled != nullptr) landings.emplace_back(cache.layer(l));
  }
  if (landings.empty()) return;
  const DeviceTurn turn(device);
  for (Landing& landing : landings) {
    UnsettledLayer& news = UnsettledOf(*landing.store);
    Download(news.chosen, landing.chosen.data(), device);
    Download(news.best, landing.best.data(), device);
    if (news.faults != nullptr) Download(*news.faults, &landing.faults, device);
    DownloadEnergy(*landing.store, device);
  }
  device.Synchronize();
  for (size_t i = 0; i < landings.size(); ++i) {
    const std::unique_ptr<UnsettledRows> told = std::move(landings[i].store->unsettled);
    const auto& news = dynamic_cast<const UnsettledLayer&>(*told);
    KVC_CHECK(landings[i].faults == 0, kNumeric,
              "{}: layer {}: expected finite scores of all tokens, got {} others; check the "
              "model's weights for NaN",
              ScorerName(news.scorer), i, landings[i].faults);
    if (news.faults != nullptr) SettleTiers(landings[i]);
  }
}

}  // namespace kvc::runtime
