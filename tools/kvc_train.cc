// kvc-train: trains a small decoder from scratch on text, or on the needle task and text.

#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/base/sizes.h"
#include "core/io/json.h"
#include "eval/tasks/needle_task.h"
#include "model/threads.h"
#include "pipeline/train_stage.h"
#include "tools/common_options.h"

namespace {

using kvc::Json;

// Options as typed; Resolve makes the request from them.
struct TrainCommand {
  kvc::pipeline::TrainRequest request;
  std::string config, output, tokenizer, initial;
  std::vector<std::string> texts;
  std::string task = "text";
  std::string curriculum;
  std::string length = "256";
  std::string rank;
  std::string dtype = "bf16";
  bool list_words = false;
  bool no_previous_token_head = false;
};

void AddOptions(CLI::App& app, TrainCommand& c) {
  app.add_option("CONFIG", c.config, "config.json of the model to train");
  app.add_option("-o,--out,--output", c.output, "Directory of the trained model");
  app.add_flag("--force", c.request.force, "Replace a directory that is not empty");
  app.add_option("--tokenizer", c.tokenizer, "Directory with the tokenizer; default: CONFIG's");
  app.add_option("--text", c.texts, "Training text, UTF-8 or .jsonl; repeatable");
  app.add_option("--task", c.task, "text, or needle (needles between pieces of the text)")
      ->capture_default_str()
      ->check(CLI::IsMember({"text", "needle"}));
  app.add_option("--curriculum", c.curriculum, "Stages of the needle task (JSON)");
  app.add_option("--steps", c.request.train.steps, "Optimizer steps")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--batch", c.request.batch, "Sequences of --length tokens for each step")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--length", c.length, "Tokens of a sequence")->capture_default_str();
  app.add_option("--lr", c.request.train.learning_rate, "Highest learning rate")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--last-lr-share", c.request.train.last_rate_share,
                 "Share of --lr that is left at the last step")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--init", c.initial, "Model whose weights are the first ones");
  app.add_flag("--no-previous-token-head", c.no_previous_token_head,
               "Needle task: start from random weights alone, without a head made to attend to "
               "the token before");
  app.add_option("--weight-decay", c.request.train.weight_decay, "Weight decay of matrices")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--answer-weight", c.request.train.answer_weight,
                 "Needle task: weight of the answers' mean loss")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--log-every", c.request.train.log_every, "Steps between lines of the log")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--checkpoint-every", c.request.train.checkpoint_every,
                 "Steps between checkpoints")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--dtype", c.dtype, "Type of the written weights")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  app.add_option("--rank", c.rank,
                 "Thin keys from scratch: a share of a head's width or dimensions; written as "
                 "rope-pairs");
  app.add_flag("--list-words", c.list_words, "Print the needle task's words and stop");
}

kvc::pipeline::TrainRequest Resolve(const TrainCommand& c) {
  kvc::pipeline::TrainRequest request = c.request;
  request.config = c.config;
  request.output = c.output;
  request.tokenizer = c.tokenizer;
  request.texts.assign(c.texts.begin(), c.texts.end());
  request.task =
      c.task == "needle" ? kvc::pipeline::TrainTask::kNeedle : kvc::pipeline::TrainTask::kText;
  request.curriculum = c.curriculum;
  request.length = kvc::ParseLength(c.length, "--length");
  if (!c.rank.empty()) request.rank = kvc::ParseRank(c.rank, "--rank");
  request.previous_token_head = !c.no_previous_token_head;
  request.train.initial = c.initial;
  request.train.dtype = kvc::DTypeFromShortName(c.dtype);
  return request;
}

Json Train(const TrainCommand& c, const kvc::tools::CommonOptions& common) {
  if (c.list_words) return {{"words", kvc::NeedleWords()}};
  kvc::pipeline::TrainRequest request = Resolve(c);
  request.train.seed = common.seed;
  kvc::model::SetThreads(kvc::tools::CheckCommonOptions(common));
  const kvc::pipeline::TrainPlan plan = kvc::pipeline::PlanTraining(request);
  Json result = {{"parameters", plan.parameters},
                 {"weight_bytes", plan.parameters * kvc::DTypeBytes(request.train.dtype)},
                 {"steps", request.train.steps},
                 {"settings", plan.settings}};
  if (common.dry_run) return result;
  const auto progress = kvc::tools::MakeProgress(common);
  const auto report = kvc::pipeline::RunTraining(request, plan, *progress);
  result["resumed_at"] = report.resumed_at;
  result["tokens"] = report.tokens;
  result["loss"] = report.log.back().loss;
  result["answer_accuracy"] = report.log.back().answer_accuracy;
  return result;
}

void Print(const Json& result) {
  if (result.contains("words")) {
    for (const Json& word : result["words"]) std::cout << word.get<std::string>() << '\n';
    return;
  }
  std::cout << result["parameters"] << " parameters, " << result["weight_bytes"] << " bytes, "
            << result["steps"] << " steps\n";
  if (result.contains("loss")) {
    std::cout << "loss " << result["loss"] << " nats, " << result["answer_accuracy"]
              << " of the answers right, " << result["tokens"] << " tokens\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains a small decoder from scratch");
  kvc::tools::CommonOptions common;
  TrainCommand command;
  AddOptions(app, command);
  kvc::tools::AddCommonOptions(
      app, common,
      "  kvc-train config.json -o model --text book.txt --steps 2000 --length 256\n"
      "  kvc-train config.json -o model --text book.txt --task needle --steps 4000 --batch 4 "
      "--length 1024 --lr 2e-3");
  return kvc::tools::RunCommand(
      argc, argv, "kvc-train", app, common, [&] { return Train(command, common); }, Print);
}
