#pragma once
// Trains a small decoder from scratch with AdamW (model/adamw.h) on the batches of a BatchSource.
//
// The loss is the mean cross entropy of the predicted tokens that can be learned (TokenRole) plus
// answer_weight times the mean over the answers. Every batch is cut into kTrainShards parts whose
// gradients are added in order, and each part runs on one thread, so results do not depend on the
// number of threads, or of ranks (core/base/ranks.h), which share the parts: more ranks than parts
// only wait. Every rank has all weights and the optimizer's state; rank 0 writes. A step's batch
// depends only on the seed, the step and the source's state, so a run that was stopped and resumed
// from its checkpoint ends with the same bytes as an uninterrupted one.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/checkpoint/model_config.h"
#include "model/adamw.h"
#include "model/batch_source.h"

namespace kvc::model {

inline constexpr int64_t kTrainShards = 4;

// Options of a training run. Only matrices are decayed, vectors are not.
struct TrainOptions : AdamWOptions {
  double answer_weight = 1.0;
  bool previous_token_head = false;  // ParameterList::StartPreviousTokenHead on the first weights
  uint64_t seed = 42;
  int64_t log_every = 50;          // steps
  int64_t checkpoint_every = 500;  // steps
  // Hugging Face directory of the same sizes that gives the first weights; if empty, they are
  // random.
  std::filesystem::path initial;
  DType dtype = DType::kBF16;  // of the written weights
};

// One row of the log: means over `log_every` steps.
struct TrainLogRow {
  int64_t step = 0;            // the last one
  double loss = 0;             // mean cross entropy of the tokens that can be learned, nats
  double answer_accuracy = 0;  // share of the answers predicted right; 0 when there are none
  double learning_rate = 0;    // of the last step
  std::string source;          // BatchSource::Describe
};

struct TrainReport {
  int64_t parameters = 0;
  int64_t steps = 0;
  int64_t resumed_at = 0;  // 0: from the start
  int64_t tokens = 0;      // predicted, over all steps
  std::vector<TrainLogRow> log;
};

// Collective: trains and writes model.safetensors and training.json (options and log) into
// `directory`. Every checkpoint_every steps the same files are written together with
// training_state.safetensors, from which a later call with the same options resumes; it is removed
// at the end. `settings` is what the caller's batches depend on (files, batch, length, curriculum).
// It is stored in training.json, and a run whose settings differ from the checkpoint's is refused.
//
// Throws kNumeric when loss or gradient is not finite (the last checkpoint stays), kUsage when the
// directory holds a checkpoint of another run (naming the field), kInterrupted from `progress`
// (after writing a checkpoint), kBadInput for ids outside the vocabulary.
TrainReport Train(const ModelConfig& config,
                  BatchSource& source,
                  const TrainOptions& options,
                  const Json& settings,
                  const std::filesystem::path& directory,
                  Progress& progress,
                  Ranks& ranks = OneRank());

}  // namespace kvc::model
