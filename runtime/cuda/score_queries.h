#pragma once
// A layer's queries as scores read them, on the device: those of the window, and those of a prompt
// that are expected again.

#include <cstdint>
#include <map>
#include <utility>

#include "kernels/cuda/expected_attention.h"
#include "kernels/cuda/scores.h"
#include "runtime/backend.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/cuda/device_table.h"

namespace kvc::runtime {

// Query heads are numbered through the layer; views begin at the first one of a kv head. The object
// owns tables of rotations that its views point to.
class ScoreQueries {
 public:
  // All must outlive the object.
  ScoreQueries(const ScoreRequest& request,
               const CudaModel& model,
               const SequenceCache& cache,
               CudaDevice& device);

  // The newest queries of the ring, as many as the spec's window has.
  [[nodiscard]] cuda::QueryRows Window(int64_t first_head) const;
  // The prompt's, or without them all of the ring.
  [[nodiscard]] cuda::QueryRows Prompt(int64_t first_head) const;
  // How `output-error` takes the prompt's queries for a head that holds `rows` tokens.
  [[nodiscard]] cuda::QueryTurn Turn(int64_t rows);
  // Fills in the prompt's queries behind the sinks, and their rotations.
  void AddExpected(int64_t first_head, cuda::ExpectedHead& head);

 private:
  using Rotation = std::pair<DeviceTable<float>, DeviceTable<float>>;  // cosines, sines

  [[nodiscard]] cuda::QueryRows FromRing(int64_t first_head, int64_t count) const;
  // Positions that queries are turned to behind `rows` tokens [count, D_k / 2].
  const Rotation& Coming(int64_t rows, int64_t count);
  // The mean over coming positions [D_k / 2].
  const Rotation& Mean(int64_t rows);

  const ScoreRequest& request_;
  const CudaModel& model_;
  const SequenceCache& cache_;
  const QueryRing& ring_;
  CudaDevice& device_;
  std::map<std::pair<int64_t, int64_t>, Rotation> coming_;  // by tokens and count
  std::map<int64_t, Rotation> means_;                       // by tokens
};

}  // namespace kvc::runtime
