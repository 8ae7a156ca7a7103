#pragma once
// Tables of one layer's part of a decode step: where each sequence's new row goes, and what its
// heads attend to. They hold until rows of the layer move (Backend::Apply), while recent blocks and
// rings grow: kernels read the numbers of rows from counters on the device.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/move_rows.h"
#include "kernels/cuda/project_rows.h"
#include "runtime/backend.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/cuda_activations.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/device_table.h"

namespace kvc::runtime {

// What a step counts of a layer of a sequence.
struct RowCounters {
  int32_t held = 0;    // where the step's row goes in the recent block: behind those it holds, or
                       // in a full ring to the oldest's place
  int32_t live = 0;    // rows of the recent block with it
  int32_t pushed = 0;  // queries that the ring has been given before the step
};

// Memory of a step that all layers share.
struct DecodeScratch {
  float* queries = nullptr;   // [B, H, D], in coordinates
  float* outputs = nullptr;   // likewise
  float* partials = nullptr;  // of decode attention
  int32_t* arrived = nullptr;
  int32_t blocks = 0;  // of decode attention
};

// Says that a layer's rows have not moved: it goes when they do (LayerCache::tables).
struct RowsStay : LayerTables {
  std::shared_ptr<const char> token = std::make_shared<const char>();
};

class DecodeTables {
 public:
  // Whether the tables are of these caches' rows as they lie.
  [[nodiscard]] bool Hold(int64_t layer, std::span<SequenceCache* const> caches) const;
  // Makes them anew. `counters` [B]: on the device.
  void Make(int64_t layer,
            std::span<SequenceCache* const> caches,
            const CudaActivations& x,
            const RowCounters* counters,
            const DecodeScratch& scratch,
            DeviceBases& bases);
  // Stores the rows of all sequences and attends: at most four launches.
  void Launch(cuda::StreamHandle stream) const;

 private:
  class Maker;
  template <class T, class Size>
  struct Table {
    DeviceTable<T> entries;
    int32_t count = 0;
    Size size = {};
  };
  using Projections = Table<cuda::RowProjection, cuda::ProjectionSize>;

  std::vector<std::weak_ptr<const char>> stay_;  // [B], tokens
  Table<cuda::RowMove, int32_t> moves_;
  Projections into_coordinates_;  // new rows and queries
  Projections out_of_coordinates_;
  DeviceTable<int32_t> positions_;  // of latents
  DeviceTable<cuda::DecodeSegment> segments_;
  DeviceTable<cuda::DecodeHead> heads_;
  DeviceTable<cuda::DecodePiece> pieces_;
  DeviceTable<int32_t> first_;
  cuda::DecodeArguments arguments_;
  cuda::DecodeLaunch launch_;
};

}  // namespace kvc::runtime
