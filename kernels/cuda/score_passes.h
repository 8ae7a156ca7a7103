#pragma once
// The parts of SumScores (scores.h), in the order in which they run.

#include "kernels/cuda/scores.h"

namespace kvc::cuda {

// What all parts are given.
struct ScoreCall {
  const ScoreHead* heads = nullptr;  // on the device
  float* scratch = nullptr;
  float scale = 0.0F;
};

// Gathers the queries of all heads into scratch memory, turned where they are the prompt's.
void GatherQueries(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream);
// The first pass: for each query and each part of the tokens the softmax and the output so far,
// without the token that has most of the attention.
void RunQueryPass(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream);
// Merges the parts into states, and with errors what M makes of the outputs.
void FindQueryStates(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream);
// v M_h v^T of all tokens and query heads.
void FindNorms(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream);
// The second pass: the sums of each token.
void RunTokenPass(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream);

}  // namespace kvc::cuda
