#pragma once
// Runs sequences of several contestants on several prompts. A policy's drops change nothing before
// decoding, so contestants that share a session share each prompt's prefill, and all of a session's
// sequences decode in one batch.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/session.h"

namespace kvc::eval {

struct Contestant {
  std::string name;
  runtime::Session* session = nullptr;  // contestants with the same one share a prefill
  std::optional<CacheSpec> cache;       // instead of its bundle's
};

class Runner {
 public:
  // Borrows the contestants. Throws kBadShape when vocabularies differ.
  Runner(std::span<const Contestant> contestants, size_t prompts);

  // Prefills prompts 0, 1, 2, ... in this order, all before the first step. `base`, except for its
  // cache, applies to every contestant.
  void Prefill(size_t prompt, std::span<const int32_t> ids, const runtime::SequenceOptions& base);

  // A sequence that is given this instead of a token rests; its logits stay.
  static constexpr int32_t kRest = -1;
  // Feeds next(prompt, contestant) to every sequence.
  void Step(const std::function<int32_t(size_t, size_t)>& next);

  // Feeds one sequence alone, without changing its logits. Returns the processor seconds of this
  // step, without those of choosing what is kept (runtime::CacheCounters).
  double StepAlone(size_t prompt, size_t contestant, int32_t id);

  // Returns the logits [V] after the token fed last.
  [[nodiscard]] std::span<const float> logits(size_t prompt, size_t contestant) const;
  [[nodiscard]] runtime::CacheCounters counters(size_t prompt, size_t contestant) const;

 private:
  // The contestants of one session, whose sequences decode in one batch.
  struct SessionBatch {
    runtime::Session* session = nullptr;
    std::vector<const Contestant*> members;
    std::vector<std::unique_ptr<runtime::Sequence>> sequences;  // [prompt][member]
    std::vector<int32_t> ids;                                   // likewise
    std::vector<float> logits;                                  // [prompt][member][V]
  };
  struct BatchPosition {
    size_t batch = 0;
    size_t member = 0;
  };

  SessionBatch& BatchOf(runtime::Session* session);
  void Decode(SessionBatch& batch);
  [[nodiscard]] size_t Index(size_t prompt, size_t contestant) const;

  size_t prompts_;
  int64_t vocabulary_ = 0;
  std::vector<SessionBatch> batches_;
  std::vector<BatchPosition> positions_;  // by contestant
  std::vector<float> scratch_;            // rows of the sequences that do not rest
};

}  // namespace kvc::eval
