#pragma once
// Scores of a layer's prompt that are finished on the CUDA device and stay there
// (kernels/cuda/finish_scores.h), and rules that are executed by them: no call here waits for the
// stream.

#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/thread_pool.h"
#include "runtime/backend.h"
#include "runtime/cache/keep_rule.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/device.h"

namespace kvc::runtime {

struct ScoresOnDevice : PlacedScores {
  Buffer scores;                         // floats of all groups
  std::vector<int64_t> first;            // [n] float where a group's scores [T] begin
  std::shared_ptr<const Buffer> faults;  // one int32: sums that were no finite numbers
  ScorerKind scorer = {};
};

// Returns true if the device can finish the scores of a layer's groups: all scorers, but where
// several heads share their tokens only those whose scores are added as they are.
[[nodiscard]] bool CanFinish(const ScoreRequest& request, const SequenceCache& cache);

// Backend::ScoreInPlace for what CanScore and CanFinish say yes to.
[[nodiscard]] std::shared_ptr<const ScoresOnDevice> ScoreInPlaceOnDevice(
    const ScoreRequest& request,
    const CudaModel& model,
    SequenceCache& cache,
    DeviceBases& bases,
    ThreadPool& pool,
    CudaDevice& device);

// Backend::ApplyRule.
void ApplyRuleOnDevice(const LayerRule& rule,
                       const ScoresOnDevice& scores,
                       int64_t layer,
                       SequenceCache& cache,
                       CudaDevice& device);

}  // namespace kvc::runtime
