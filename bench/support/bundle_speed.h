#pragma once
// Tokens per second of a bundle, measured for a separate prefill and for decoding at several
// depths.
//
// At depth d the cache is that of a real prompt: d - decode tokens are prefilled (at least one) and
// compressed as the bundle says, and the last decoded token is the d-th. In a batch every sequence
// is a copy of that one; rates count all their tokens, bytes are one sequence's.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "bench/support/repeat.h"
#include "core/cache/cache_spec.h"
#include "runtime/session.h"

namespace kvc::bench {

struct SpeedPlan {
  int64_t prompt = 0;  // tokens of the separately measured prefill
  int64_t decode = 0;  // tokens decoded at each depth
  int64_t repetitions = 3;
  std::vector<int64_t> depths;          // ascending
  int64_t batch = 1;                    // sequences that decode together, each at the same depth
  std::optional<CacheSpec> cache = {};  // instead of the manifest's policy

  [[nodiscard]] int64_t PrefillAt(int64_t depth) const;
  // Returns the largest number of token ids that the measurement feeds.
  [[nodiscard]] int64_t LongestSequence() const;
};

// Tokens per second: of the shortest run, of the middle one, and of all runs as llama-bench says
// them, mean and standard deviation (0 for one run).
struct Rates {
  double best = 0.0;
  double median = 0.0;
  double mean = 0.0;
  double deviation = 0.0;
};
// `tokens` in each of the runs.
[[nodiscard]] Rates RatesOf(const Times& times, int64_t tokens);

struct DepthSpeed {
  int64_t depth = 0;
  int64_t prefill_tokens = 0;
  double prefill_rate = 0.0;  // of the one prefill that the decoding starts from
  Rates decode;
  runtime::CacheCounters cache;  // mean over the runs
  // Extra bytes of the cache over those at the shallowest depth, divided by the extra seconds of a
  // step; none if there is no difference to measure.
  std::optional<double> attention_bytes_per_second;
};

// Measures a bundle. Borrows the session and the ids, SpeedPlan::LongestSequence() of them or more.
class BundleSpeed {
 public:
  BundleSpeed(runtime::Session& session, const SpeedPlan& plan, std::span<const int32_t> ids);

  [[nodiscard]] Rates Prompt();
  // Measures one depth. Depths must come in ascending order.
  [[nodiscard]] DepthSpeed Depth(int64_t depth);

 private:
  // Returns a sequence of the first `tokens` ids with room for `more`, and the seconds that it
  // took.
  std::pair<std::unique_ptr<runtime::Sequence>, double> Prefill(int64_t tokens, int64_t more);
  // One token for each sequence.
  void Decode(const std::vector<std::unique_ptr<runtime::Sequence>>& sequences, int32_t id);
  [[nodiscard]] std::optional<double> ReadRate() const;

  runtime::Session& session_;
  SpeedPlan plan_;
  std::span<const int32_t> ids_;
  std::vector<float> logits_;         // [batch, V]
  std::vector<double> step_seconds_;  // by depth so far, of the shortest run
  std::vector<double> cache_bytes_;
};

}  // namespace kvc::bench
