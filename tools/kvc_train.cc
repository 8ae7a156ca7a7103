// kvc-train: trains a small decoder from scratch on text, or on the needle task and text.

#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/base/counted.h"
#include "core/base/sizes.h"
#include "eval/tasks/needle_task.h"
#include "model/threads.h"
#include "pipeline/train_stage.h"
#include "tools/common_options.h"
#include "tools/number_checks.h"

namespace kvc::tools {
namespace {

// Options as typed; Resolve makes the request from them.
struct TrainCommand {
  pipeline::TrainRequest request;
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
      ->check(AboveZero());
  app.add_option("--batch", c.request.batch, "Sequences of --length tokens for each step")
      ->capture_default_str()
      ->check(AboveZero());
  app.add_option("--length", c.length, "Tokens of a sequence")->capture_default_str();
  app.add_option("--lr", c.request.train.learning_rate, "Highest learning rate")
      ->capture_default_str()
      ->check(AboveZero());
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
      ->check(ZeroOrMore());
  app.add_option("--answer-weight", c.request.train.answer_weight,
                 "Needle task: weight of the answers' mean loss")
      ->capture_default_str()
      ->check(ZeroOrMore());
  app.add_option("--log-every", c.request.train.log_every, "Steps between lines of the log")
      ->capture_default_str()
      ->check(AboveZero());
  app.add_option("--checkpoint-every", c.request.train.checkpoint_every,
                 "Steps between checkpoints")
      ->capture_default_str()
      ->check(AboveZero());
  app.add_option("--dtype", c.dtype, "Type of the written weights")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  app.add_option("--rank", c.rank,
                 "Thin keys from scratch: a share of a head's width or dimensions; written as "
                 "rope-pairs");
  app.add_flag("--list-words", c.list_words, "Print the needle task's words and stop");
}

pipeline::TrainRequest Resolve(const TrainCommand& c) {
  pipeline::TrainRequest request = c.request;
  request.config = c.config;
  request.output = c.output;
  request.tokenizer = c.tokenizer;
  request.texts.assign(c.texts.begin(), c.texts.end());
  request.task = c.task == "needle" ? pipeline::TrainTask::kNeedle : pipeline::TrainTask::kText;
  request.curriculum = c.curriculum;
  request.length = ParseLength(c.length, "--length");
  if (!c.rank.empty()) request.rank = ParseRank(c.rank, "--rank");
  request.previous_token_head = !c.no_previous_token_head;
  request.train.initial = c.initial;
  request.train.dtype = DTypeFromShortName(c.dtype);
  return request;
}

CommandResult Train(const TrainCommand& c, const CommonOptions& common) {
  if (c.list_words) {
    const std::vector<std::string> words = NeedleWords();
    return {{{"words", words}}, [words] {
              for (const std::string& word : words) std::cout << word << '\n';
            }};
  }
  pipeline::TrainRequest request = Resolve(c);
  request.train.seed = common.seed;
  model::SetThreads(CheckCommonOptions(common));
  const pipeline::TrainPlan plan = pipeline::PlanTraining(request);
  const int64_t bytes = plan.parameters * DTypeBytes(request.train.dtype);
  CommandResult result;
  result.json = {{"parameters", plan.parameters},
                 {"weight_bytes", bytes},
                 {"steps", request.train.steps},
                 {"settings", plan.settings}};
  const auto print_sizes = [parameters = plan.parameters, bytes, steps = request.train.steps] {
    std::cout << Counted(parameters, "parameter") << ", " << Counted(bytes, "byte") << ", "
              << Counted(steps, "step") << '\n';
  };
  result.print = print_sizes;
  if (common.dry_run) return result;
  const auto report = pipeline::RunTraining(request, plan, *MakeProgress(common), *common.ranks);
  const model::TrainLogRow& last = report.log.back();
  result.json["resumed_at"] = report.resumed_at;
  result.json["tokens"] = report.tokens;
  result.json["loss"] = last.loss;
  result.json["answer_accuracy"] = last.answer_accuracy;
  result.print = [print_sizes, last, tokens = report.tokens] {
    print_sizes();
    std::cout << "loss " << Json(last.loss) << " nats, " << Json(last.answer_accuracy)
              << " of the answers right, " << Counted(tokens, "token") << '\n';
  };
  return result;
}

}  // namespace
}  // namespace kvc::tools

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Trains a small decoder from scratch");
  CommonOptions common;
  TrainCommand command;
  AddOptions(app, command);
  AddCommonOptions(
      app, common,
      "  kvc-train config.json -o model --text book.txt --steps 2000 --length 256\n"
      "  kvc-train config.json -o model --text book.txt --task needle --steps 4000 --batch 4 "
      "--length 1024 --lr 2e-3");
  return RunCommand(
      argc, argv, "kvc-train", app, common, [&] { return Train(command, common); }, RankUse::kAny);
}
