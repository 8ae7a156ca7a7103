#pragma once
// One decode step of a batch of sequences. A backend's calls are noted, and run when the logits are
// read: a step whose calls and tables are those of an earlier one is replayed as one CUDA graph,
// any other is run call by call. Tables and graphs are kept for several batches, so that batches
// which take turns do not make them anew.

#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "runtime/backend.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/cuda_activations.h"
#include "runtime/cuda/decode_tables.h"
#include "runtime/device.h"

namespace kvc::runtime {

// How steps have been run.
struct StepCounts {
  int64_t one_by_one = 0;  // call by call, because rows have moved
  int64_t captured = 0;    // as a graph that was made for them
  int64_t replayed = 0;    // as the graph of an earlier step
};

// Batches whose tables and graphs are kept; of more, those that have not run for the longest time
// are made anew.
inline constexpr size_t kMostKeptBatches = 16;

// Belongs to activations that serve decode steps. Between the calls of a step a cache may be
// re-allocated in layers that have not been noted yet: nothing noted reads those.
class DecodeStep {
 public:
  // `batch`: the most sequences of a step. `counts` must outlive the object.
  DecodeStep(const Plan& plan, int64_t batch, CudaDevice& device, StepCounts& counts);

  // Notes a part of a section. The first one begins a step.
  void Run(int64_t section, SectionPart part);
  // Takes row b of the batch into the books of a sequence; the row itself follows with Attend.
  void Store(int64_t layer, int64_t b, int64_t position, SequenceCache& cache);
  void Attend(int64_t layer,
              std::span<SequenceCache* const> caches,
              const CudaActivations& x,
              DeviceBases& bases);
  // Runs what was noted.
  void Finish(CudaActivations& x);

 private:
  struct Note {
    int64_t section = 0;
    SectionPart part = SectionPart::kWhole;
    int64_t layer = -1;  // attention of a layer instead
    friend bool operator==(const Note&, const Note&) = default;
  };
  // What is kept of the steps of one batch.
  struct Batch {
    std::vector<const SequenceCache*> caches;  // a name: never read
    std::vector<DecodeTables> tables;          // [L]
    std::vector<Note> captured;
    cuda::Graph graph;
    bool has_graph = false;
  };
  [[nodiscard]] Batch& BatchOf(std::span<SequenceCache* const> caches);
  void RunNotes(CudaActivations& x) const;

  int64_t batch_;   // the most sequences
  int64_t layers_;  // L
  CudaDevice& device_;
  std::list<Batch> kept_;              // the one that ran last comes first
  Batch* current_ = nullptr;           // of the step; null before its first attention
  std::vector<RowCounters> counters_;  // [L, batch]
  Buffer device_counters_;             // likewise
  Buffer floats_;                      // coordinates of queries and outputs, partials
  Buffer arrived_;
  DecodeScratch scratch_;
  std::vector<Note> notes_;
  bool tables_changed_ = false;
  StepCounts& counts_;
};

}  // namespace kvc::runtime
