#pragma once
// Training sequences that teach the needle task (eval/tasks/needle_task.h), easy ones first.
//
// A model that learns to look up facts first learns to copy any value that it has seen and stays at
// that plateau for millions of tokens: finding the right value takes two attention heads, one that
// looks at the previous token and one that matches it, and neither is of use alone. Three steps
// move it off the plateau: first, random stretches of tokens ("motifs") that return in random order
// with random tokens between them, so that neither position nor the set of tokens seen tells what
// follows; then facts in short sequences; then more facts, questions and text between them, and
// longer sequences. A curriculum is a list of such stages; the next one begins when the answers of
// the current one are right often enough.
// TrainOptions::previous_token_head gives the model the first of the two heads; prototypes without
// it did not leave the first stage in 2.4M tokens.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"
#include "core/tokenizer/tokenizer.h"
#include "model/batch_source.h"

namespace kvc::model {

// A stage of the curriculum. With the given probabilities a sequence is a window of the text,
// motifs, or a document of facts. A document consists of pieces of text, facts told for the first
// time (their values are random), and facts told again or asked for (their values are the answers).
// In motifs, whatever follows the first token of a motif seen before can be known; these tokens are
// the answers of a stage without facts.
struct NeedleStage {
  int64_t length = 128;     // tokens of a sequence
  int64_t batch = 0;        // sequences of a step; 0: as many as make the default number of tokens
  int64_t words = 32;       // keys, and values, in use: the first of the lists
  int64_t facts = 8;        // in a document, at most; at least 2
  int64_t motif = 8;        // tokens of the longest motif; 2 at least
  int64_t motifs = 4;       // different ones in a sequence, at most
  int64_t filler = 2;       // random tokens between motifs, at most
  double repeat = 0;        // share of sequences that are motifs
  double text = 0;          // share of sequences that are text
  double haystack = 0;      // share of a document's pieces that are text
  int64_t piece = 60;       // tokens of the longest piece of text
  double question = 0;      // share of returning facts that are questions
  double until = 0.9;       // share of right answers over kStageWindow steps that ends the stage
  int64_t steps = 1000000;  // that end the stage in any case
};

inline constexpr int64_t kStageWindow = 50;  // steps over which `until` is measured

// Returns the curriculum that --task needle uses when none is given; its last stages have `length`
// tokens.
[[nodiscard]] std::vector<NeedleStage> DefaultNeedleStages(int64_t length);
// Parses a JSON array of objects with the fields above; absent fields keep their defaults. Throws
// kBadInput naming the stage and field for unknown fields and for values out of range.
[[nodiscard]] std::vector<NeedleStage> ParseNeedleStages(const Json& stages,
                                                         const std::string& origin);
[[nodiscard]] Json ToJson(const std::vector<NeedleStage>& stages);

// Returns a source of batches with the stage's number of sequences, or of about `batch_tokens`
// tokens and at least one sequence. `text` is a stream of ids; it must be longer than the length of
// every stage that uses text (otherwise kBadInput). The source borrows nothing.
[[nodiscard]] std::unique_ptr<BatchSource> MakeNeedleSource(const Tokenizer& tokenizer,
                                                            std::vector<int32_t> text,
                                                            std::vector<NeedleStage> stages,
                                                            int64_t batch_tokens);

}  // namespace kvc::model
