#pragma once
// Sums over queries, and what is found from keys, of all kv heads of a layer that lies on a CUDA
// device: what scores and losses are made of, on the host (scoring.h) or in place
// (placed_scores.h).

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "core/base/thread_pool.h"
#include "kernels/cuda/expected_attention.h"
#include "kernels/cuda/key_scores.h"
#include "kernels/cuda/scores.h"
#include "kernels/cuda/tier_losses.h"
#include "runtime/backend.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/cuda/score_queries.h"
#include "runtime/cuda/score_rows.h"

namespace kvc::runtime {

// Which sums a scorer and narrow tiers ask for.
struct WantedSums {
  bool attention = false;
  bool window_mean = false;  // of errors
  bool window_maximum = false;
  bool prompt = false;
  bool norms = false;  // of keys
  bool keydiff = false;
  bool expected = false;
  bool losses = false;  // of narrow tiers
  bool largest_losses = false;

  [[nodiscard]] bool errors() const { return window_mean || window_maximum || prompt || losses; }
  [[nodiscard]] bool queries() const { return attention || errors(); }
};
[[nodiscard]] WantedSums WantedOf(ScorerKind kind, const CacheSpec& spec);

// An array [T] of a head; none where it is not wanted.
struct SumArray {
  int64_t turn = -1;   // of the heads that were run together
  int64_t begin = 0;   // floats before it
  int64_t length = 0;  // T
};

// What is found of one kv head.
struct HeadSums {
  HeadPlace place;
  int64_t rows = 0;            // T
  int64_t heads = 0;           // query heads
  int64_t window = 0;          // queries of the window for each of them
  int64_t prompt_queries = 0;  // queries of the prompt for each of them
  SumArray attention;
  SumArray errors, maxima;  // over the window's queries
  SumArray by_prompt;       // errors, or the scores of expected attention
  SumArray keys;
  std::vector<SumArray> tiers;  // [narrow tiers]
};

// Returns true if the kernels know a layer's widths, groups and rotations. What they cannot do is
// scored on the host (runtime/cpu/host_fallback.h).
[[nodiscard]] bool CanScore(const ScoreRequest& request,
                            const CudaModel& model,
                            const SequenceCache& cache);

// Finds sums in the device's stream. Everything given must outlive the object.
class LayerSums {
 public:
  LayerSums(const ScoreRequest& request,
            const CudaModel& model,
            const SequenceCache& cache,
            DeviceBases& bases,
            ThreadPool& pool,
            CudaDevice& device);

  // Puts all launches into the stream. Heads of a long layer take turns where their rows must be
  // copied, so that the copies stay small beside the layer.
  void Find();
  [[nodiscard]] const WantedSums& wanted() const { return wanted_; }
  // In the order of groups and their planes.
  [[nodiscard]] std::span<const HeadSums> heads() const { return heads_; }
  // Where an array lies on the device; null for none.
  [[nodiscard]] const float* OnDevice(const SumArray& array) const;
  // Brings all arrays to the host once the stream has been waited for.
  void Download();
  [[nodiscard]] std::span<const float> OnHost(const SumArray& array) const;

 private:
  [[nodiscard]] int64_t CopiedBytes(const HeadSums& head) const;
  [[nodiscard]] int64_t ArraysOfHead() const;
  void MakeOutputs(int64_t floats);
  float* Output(const HeadSums& head, SumArray& array);
  void RunHeads(std::span<HeadSums> heads);
  void AddQueries(HeadSums& head, cuda::ScoreHead& entry);
  void AddExpected(HeadSums& head,
                   const cuda::ScoreHead& rows,
                   std::vector<cuda::ExpectedHead>& table);
  void AddTiers(HeadSums& head,
                int32_t index,
                const cuda::ScoreHead& entry,
                ScoreRows& rows,
                std::vector<cuda::ScoreTier>& tiers);
  void RunQueries(std::vector<cuda::ScoreHead> heads, const std::vector<cuda::ScoreTier>& tiers);
  void RunKeys(std::vector<cuda::KeyHead> heads);
  void RunExpected(std::vector<cuda::ExpectedHead> heads);

  const ScoreRequest& request_;
  const CudaModel& model_;
  const AttentionStep& attention_;
  const SequenceCache& cache_;
  const CacheSpec& spec_;
  const LayerCache& store_;
  const WantedSums wanted_;
  DeviceBases& bases_;
  ThreadPool& pool_;
  CudaDevice& device_;
  ScoreQueries queries_;
  std::vector<HeadSums> heads_;
  // Of the heads that take a turn together: arrays on the device and where they go.
  std::deque<Buffer> outputs_;
  std::deque<std::vector<float>> host_;
  int64_t used_ = 0;  // floats of the last ones
};

}  // namespace kvc::runtime
