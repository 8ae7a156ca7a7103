#pragma once
// The input of a scorer's last part: what has been summed over queries, or found from keys, for
// each token. Scorer::Finish makes scores of it, for the scorers here as for a device's kernels.

#include <cstdint>
#include <span>

namespace kvc::scorers {

// Sums of a kv head with T tokens. Which of them a scorer reads:
//
//   snapkv              by_window: attention, summed over window and heads
//   output-error        by_window: e, summed over them where options.mean is set, else the largest;
//                       with options.prompt also by_prompt: e, summed over the prompt's queries;
//                       with options.keydiff also by_keys: the scores of KeyDiff
//   keydiff, knorm      by_keys: their scores
//   expected-attention  by_prompt: its scores; those of the sinks do not matter
//   streaming           none
struct TokenSums {
  std::span<const float> by_window = {};  // [T]
  std::span<const float> by_prompt = {};  // [T]
  std::span<const float> by_keys = {};    // [T]
  int64_t heads = 0;                      // query heads
  int64_t window = 0;                     // W <= T: queries of the window for each of them
  int64_t prompt_queries = 0;             // queries of the prompt for each of them
  int64_t sinks = 0;
  double residual_energy = 1.0;
};

}  // namespace kvc::scorers
