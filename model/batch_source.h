#pragma once
// Sources of training batches.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/io/json_fwd.h"
#include "core/tokenizer/tokenizer.h"

namespace kvc::model {

// Role of a token for a model that has read the tokens before it.
enum class TokenRole : uint8_t {
  kPlain,   // something to learn from, like the next word of a text
  kAnswer,  // follows from what precedes it: weighs more and is counted
  kRandom,  // cannot be known: excluded from the loss
};

// Sequences of one length. Every token except the first of a sequence is predicted.
struct TrainBatch {
  int64_t sequences = 0;
  int64_t length = 0;
  std::vector<int64_t> ids;      // [sequences, length]
  std::vector<TokenRole> roles;  // [sequences, length]
};

// Numbers of predicted tokens in a batch, which are all but the first of each sequence.
struct RoleCounts {
  int64_t learned = 0;  // all but kRandom
  int64_t answers = 0;
};
[[nodiscard]] RoleCounts CountRoles(const TrainBatch& batch);

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // Returns the next batch, which depends only on the generator and on what was observed.
  [[nodiscard]] virtual TrainBatch Next(Rng& rng) = 0;
  // Reports how many of a batch's answers were predicted right (`answers` may be 0).
  virtual void Observe(int64_t right, int64_t answers) = 0;
  // Returns one line for the log: the stage of the curriculum, if there is one.
  [[nodiscard]] virtual std::string Describe() const = 0;
  // Returns what Observe has changed, so that a resumed run continues with the same batches.
  [[nodiscard]] virtual Json State() const = 0;
  virtual void Restore(const Json& state) = 0;
};

// Returns the texts as token ids, one document after the other, each followed by the
// end-of-sequence id if there is one. Throws kBadInput when fewer than `length` tokens come out.
[[nodiscard]] std::vector<int32_t> EncodeDocuments(const Tokenizer& tokenizer,
                                                   const std::vector<std::string>& documents,
                                                   int64_t length);

// Returns a source of windows of `length` tokens at random places of one stream of ids (at least
// `length` long).
[[nodiscard]] std::unique_ptr<BatchSource> MakeTextSource(std::vector<int32_t> ids,
                                                          int64_t batch,
                                                          int64_t length);

}  // namespace kvc::model
