#include "runtime/cuda/decode_step.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/device_room.h"
#include "runtime/cuda/run_steps.h"

namespace kvc::runtime {
DecodeStep::DecodeStep(const Plan& plan, int64_t batch, CudaDevice& device, StepCounts& counts)
    : batch_(batch),
      layers_(std::ssize(plan.attentions)),
      device_(device),
      counters_(plan.attentions.size() * static_cast<size_t>(batch)),
      counts_(counts) {
  int64_t heads = 0;  // of the plan of decode attention, in the layer with most
  int64_t coordinates = 0;
  for (const AttentionStep& step : plan.attentions) {
    const int64_t group = step.num_heads / step.num_kv_heads;
    const int64_t parts = (group + cuda::kDecodeQueries - 1) / cuda::kDecodeQueries;
    heads = std::max(heads, batch * step.num_kv_heads * parts);
    coordinates = std::max(coordinates, batch * step.num_heads * step.head_width);
  }
  scratch_.blocks = device.blocks();
  const int64_t partials = cuda::MostDecodePartials(heads, scratch_.blocks) *
                           cuda::DecodePartialFloats(cuda::kMostDecodeWidth);
  floats_ = Buffer((2 * coordinates + partials) * kFloatBytes, device, nullptr);
  scratch_.queries = DeviceMemory::Floats(floats_);
  scratch_.outputs = scratch_.queries + coordinates;
  scratch_.partials = scratch_.outputs + coordinates;
  arrived_ = Buffer(heads * static_cast<int64_t>(sizeof(int32_t)), device, nullptr);
  scratch_.arrived = DeviceMemory::Ints(arrived_);
  cuda::FillZero(scratch_.arrived, static_cast<size_t>(arrived_.bytes()), device.stream());
  device_counters_ =
      Buffer(std::ssize(counters_) * static_cast<int64_t>(sizeof(RowCounters)), device, nullptr);
}

void DecodeStep::Run(int64_t section, SectionPart part) {
  if (section == 0) {
    notes_.clear();
    tables_changed_ = false;
    current_ = nullptr;
  }
  notes_.push_back({section, part, -1});
}

void DecodeStep::Store(int64_t layer, int64_t b, int64_t position, SequenceCache& cache) {
  LayerCache& store = cache.layer(layer);
  const CacheBlock& first = store.groups[0].recent;
  const int64_t row = first.next_row();
  const int64_t live = std::min(first.rows() + 1, first.capacity());
  // A new position in the place of an old one: the tables have those of the rows as they were.
  if (first.shape().positions && first.rows() == first.capacity()) store.tables.reset();
  counters_[layer * batch_ + b] = {static_cast<int32_t>(row), static_cast<int32_t>(live),
                                   static_cast<int32_t>(store.queries.pushed())};
  for (GroupCache& group : store.groups) {
    KVC_CHECK(group.recent.next_row() == row, kInternal,
              "cache block: expected {} recent rows as in the layer's others, got {}", row,
              group.recent.next_row());
    group.recent.Appended(1, position);
  }
  if (store.queries.rows() > 0 && !cache.spec().full()) store.queries.Pushed(1);
}

void DecodeStep::Attend(int64_t layer,
                        std::span<SequenceCache* const> caches,
                        const CudaActivations& x,
                        DeviceBases& bases) {
  if (current_ == nullptr) current_ = &BatchOf(caches);
  DecodeTables& tables = current_->tables[layer];
  if (!tables.Hold(layer, caches)) {
    const auto* counters =
        reinterpret_cast<const RowCounters*>(DeviceMemory::Of(device_counters_)) + layer * batch_;
    tables.Make(layer, caches, x, counters, scratch_, bases);
    tables_changed_ = true;
  }
  notes_.push_back({0, SectionPart::kWhole, layer});
}

// Another batch may have had the same addresses: its tables say themselves that they hold no more.
DecodeStep::Batch& DecodeStep::BatchOf(std::span<SequenceCache* const> caches) {
  const auto found = std::ranges::find_if(
      kept_, [&](const Batch& kept) { return std::ranges::equal(kept.caches, caches); });
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
    return kept_.front();
  }
  if (kept_.size() == kMostKeptBatches) kept_.pop_back();
  Batch& fresh = kept_.emplace_front();
  fresh.caches.assign(caches.begin(), caches.end());
  fresh.tables.resize(static_cast<size_t>(layers_));
  return fresh;
}

void DecodeStep::RunNotes(CudaActivations& x) const {
  for (const Note& note : notes_) {
    if (note.layer >= 0) {
      current_->tables[note.layer].Launch(device_.stream());
    } else {
      RunSteps(note.section, note.part, x);
    }
  }
}

void DecodeStep::Finish(CudaActivations& x) {
  device_.Upload(std::as_bytes(std::span(counters_)), DeviceMemory::Of(device_counters_));
  KVC_CHECK(current_ != nullptr, kInternal, "cuda: expected a step with attention");
  Batch& batch = *current_;
  if (tables_changed_ || cuda::WaitsForLaunches()) {
    batch.has_graph = false;
    RunNotes(x);
    ++counts_.one_by_one;
  } else if (batch.has_graph && batch.captured == notes_) {
    batch.graph.Replay(device_.stream());
    ++counts_.replayed;
  } else {
    batch.graph = device_.Capture([&] { RunNotes(x); });
    batch.has_graph = true;
    batch.captured = notes_;
    batch.graph.Replay(device_.stream());
    ++counts_.captured;
  }
  notes_.clear();
}

}  // namespace kvc::runtime
