#pragma once
// The parts of ExpectedScores (expected_attention.h), in the order in which they run.

#include "kernels/cuda/expected_attention.h"

namespace kvc::cuda {

// What all parts are given.
struct ExpectedCall {
  const ExpectedHead* heads = nullptr;  // on the device
  float* scratch = nullptr;
  float scale = 0.0F;
  float epsilon = 0.0F;
  bool covariance = true;
};

// mu' and, where it is wanted, S' of all query heads.
void FindQueryStatistics(const ExpectedPlan& plan, const ExpectedCall& call, StreamHandle stream);
// The logits of all tokens behind the sinks, and their softmax' maximum and sum.
void FindExpectedLogits(const ExpectedPlan& plan, const ExpectedCall& call, StreamHandle stream);
// The scores, from these.
void FinishExpectedScores(const ExpectedPlan& plan, const ExpectedCall& call, StreamHandle stream);

}  // namespace kvc::cuda
