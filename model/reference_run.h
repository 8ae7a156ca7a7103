#pragma once
// A reference model's last hidden states on some windows (model/compare.h compares with them).

#include <cstdint>
#include <vector>

#include "core/base/ranks.h"
#include "model/compare.h"
#include "model/decoder.h"

namespace kvc::model {

// The reference's side of a comparison, computed once and used for several models. It holds the
// last hidden states instead of the logits. Of several ranks, each has the windows i with i mod
// size = its rank, and distances are over the windows of all.
struct ReferenceRun {
  ModelConfig config;
  OuterWeights outer;
  std::vector<std::vector<int32_t>> windows;
  std::vector<torch::Tensor> hidden;  // [T, E] each
  Ranks* ranks = &OneRank();
};

}  // namespace kvc::model
