#pragma once
// Where training takes its batches from.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/io/json_fwd.h"
#include "core/tokenizer/tokenizer.h"

namespace kvc::model {

// What a token is to the model that has read those before it.
enum class TokenRole : uint8_t {
  kPlain,   // something to learn from, like the next word of a text
  kAnswer,  // follows from what stands before it: weighs more and is counted
  kRandom,  // cannot be known: has no share in the loss
};

// Sequences of one length. Every token but a sequence's first is predicted.
struct TrainBatch {
  int64_t sequences = 0;
  int64_t length = 0;
  std::vector<int64_t> ids;      // [sequences, length]
  std::vector<TokenRole> roles;  // [sequences, length]
};

// Tokens of a batch that are predicted: all but the first of each sequence.
struct RoleCounts {
  int64_t learned = 0;  // all but kRandom
  int64_t answers = 0;
};
[[nodiscard]] RoleCounts CountRoles(const TrainBatch& batch);

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // Depends on the generator and on what was observed, and on nothing else.
  [[nodiscard]] virtual TrainBatch Next(Rng& rng) = 0;
  // Tells how many of a batch's answers were predicted right (`answers` may be 0).
  virtual void Observe(int64_t right, int64_t answers) = 0;
  // One line for the log: which stage of a curriculum, if there is one.
  [[nodiscard]] virtual std::string Describe() const = 0;
  // What Observe has changed, so that a resumed run goes on with the same batches.
  [[nodiscard]] virtual Json State() const = 0;
  virtual void Restore(const Json& state) = 0;
};

// The texts as token ids, documents one after the other, the end-of-sequence id (if there is one)
// behind each. Throws kBadInput when fewer than `length` tokens come out.
[[nodiscard]] std::vector<int32_t> EncodeDocuments(const Tokenizer& tokenizer,
                                                   const std::vector<std::string>& documents,
                                                   int64_t length);

// Windows of `length` tokens at random places of one stream of ids (at least `length` long).
[[nodiscard]] std::unique_ptr<BatchSource> MakeTextSource(std::vector<int32_t> ids,
                                                          int64_t batch,
                                                          int64_t length);

}  // namespace kvc::model
