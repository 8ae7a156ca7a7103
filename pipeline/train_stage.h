#pragma once
// The stage kvc-train from files to files: reads a configuration and text, writes a trained model
// with its tokenizer.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/base/sizes.h"
#include "core/checkpoint/model_config.h"
#include "core/io/json.h"
#include "model/batch_source.h"
#include "model/trainer.h"

namespace kvc::pipeline {

// Training task: plain text, or the needle task with pieces of the text.
enum class TrainTask { kText, kNeedle };

struct TrainRequest {
  std::filesystem::path config;              // config.json of the model to train
  std::filesystem::path output;              // the directory that is written
  bool force = false;                        // replaces one that is not empty
  std::filesystem::path tokenizer;           // a directory; empty: the configuration's
  std::vector<std::filesystem::path> texts;  // UTF-8 or .jsonl
  TrainTask task = TrainTask::kText;
  std::filesystem::path curriculum;  // stages of the needle task, JSON; empty: the default ones
  int64_t batch = 16;                // sequences of each step
  int64_t length = 256;              // tokens of a sequence
  std::optional<RankRequest> rank;   // thin keys from scratch, written as rope-pairs
  // Without `train.initial`, the needle task's first weights hold a head that attends to the
  // previous token (TrainOptions::previous_token_head), unless this is false.
  bool previous_token_head = true;
  model::TrainOptions train;
};

// Resolved request, before anything is trained.
struct TrainPlan {
  ModelConfig config;
  std::unique_ptr<model::BatchSource> source;
  Json settings;           // what the batches depend on
  int64_t parameters = 0;  // of the model
};

// Reads configuration, tokenizer and texts. Throws kUsage naming the option, kBadInput for a
// configuration that does not fit the tokenizer, and for a text that is too short.
[[nodiscard]] TrainPlan PlanTraining(const TrainRequest& request);

// Collective: trains `plan`, which was made from `request`. The output appears whole or not at all;
// an interrupted run leaves its checkpoint in OUT.partial, and the same request resumes from it.
[[nodiscard]] model::TrainReport RunTraining(const TrainRequest& request,
                                             const TrainPlan& plan,
                                             Progress& progress,
                                             Ranks& ranks = OneRank());

}  // namespace kvc::pipeline
