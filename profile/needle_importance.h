#pragma once
// Head importance from needle questions: HeadKV's retrieval-reasoning score [HeadKV]. A head scores
// by how much it looks at the fact while the model gives the answer:
//
//   S_h = mean over passed tests and the answer's steps of  (1/N) sum a_hj,
//         j in the needle and among the N keys that the head attends to most, N the needle's length
//
// a_h is the softmax row of the query that predicts the step's token. A test is passed when the
// model, decoding greedily, gives the answer's tokens. The score of a kv head is the maximum over
// its query heads, as for the oracle. The original uses documents with a reasoning passage as the
// needle; here the needle is the asked fact of eval/tasks/needle_task.h.

#include <cstdint>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/checkpoint/checkpoint.h"
#include "eval/tasks/needle_task.h"

namespace kvc::profile {

struct NeedleImportance {
  int64_t tests = 0;
  int64_t passed = 0;
  std::vector<double> scores;  // [L * G]; zeros when none is passed
};

// Collective: scores all heads in one streamed pass over all prompts, which the ranks share. Throws
// kBadShape for a prompt without needle, question or answer, kNumeric when an attention is not
// finite.
[[nodiscard]] NeedleImportance ScoreNeedles(const Checkpoint& checkpoint,
                                            const std::vector<NeedlePrompt>& prompts,
                                            Progress& progress,
                                            Ranks& ranks = OneRank());

// Tells whether the scores are usable: a quarter of the tests passed, and a head that found
// something.
[[nodiscard]] bool EnoughPassed(const NeedleImportance& importance);

}  // namespace kvc::profile
