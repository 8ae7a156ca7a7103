// kvc-train: trains a small decoder from scratch on text, or on the needle task and text.

#include <iostream>

#include <CLI/CLI.hpp>

#include "core/base/sizes.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "core/io/text_input.h"
#include "eval/tasks/needle_task.h"
#include "factorize/layer_factors.h"
#include "model/needle_source.h"
#include "model/parameters.h"
#include "model/threads.h"
#include "model/trainer.h"
#include "tools/common_options.h"

namespace {

namespace fs = std::filesystem;
using kvc::Json;

struct TrainCommand {
  std::string config;
  std::string output;
  std::string tokenizer;
  std::string initial;
  std::vector<std::string> texts;
  std::string task = "text";
  std::string curriculum;
  std::string length = "256";
  std::string rank;
  std::string dtype = "bf16";
  int64_t batch = 16;
  bool force = false;
  bool list_words = false;
  bool no_previous_token_head = false;
  kvc::model::TrainOptions train;
};

void AddOptions(CLI::App& app, TrainCommand& c) {
  app.add_option("CONFIG", c.config, "config.json of the model to train");
  app.add_option("-o,--out,--output", c.output, "Directory of the trained model");
  app.add_flag("--force", c.force, "Replace a directory that is not empty");
  app.add_option("--tokenizer", c.tokenizer, "Directory with the tokenizer; default: CONFIG's");
  app.add_option("--text", c.texts, "Training text, UTF-8 or .jsonl; repeatable");
  app.add_option("--task", c.task, "text, or needle (needles between pieces of the text)")
      ->capture_default_str()
      ->check(CLI::IsMember({"text", "needle"}));
  app.add_option("--curriculum", c.curriculum, "Stages of the needle task (JSON)");
  app.add_option("--steps", c.train.steps, "Optimizer steps")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--batch", c.batch, "Sequences of --length tokens for each step")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--length", c.length, "Tokens of a sequence")->capture_default_str();
  app.add_option("--lr", c.train.learning_rate, "Highest learning rate")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--last-lr-share", c.train.last_rate_share,
                 "Share of --lr that is left at the last step")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--init", c.initial, "Model whose weights are the first ones");
  app.add_flag("--no-previous-token-head", c.no_previous_token_head,
               "Needle task: start from random weights alone, without a head made to attend to "
               "the token before");
  app.add_option("--weight-decay", c.train.weight_decay, "Weight decay of matrices")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--answer-weight", c.train.answer_weight,
                 "Needle task: weight of the answers' mean loss")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--log-every", c.train.log_every, "Steps between lines of the log")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--checkpoint-every", c.train.checkpoint_every, "Steps between checkpoints")
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

void CheckOptions(const TrainCommand& c) {
  KVC_CHECK(!c.config.empty(), kUsage, "CONFIG: expected a config.json, got nothing");
  KVC_CHECK(!c.output.empty(), kUsage, "-o: expected an output directory, got nothing");
  KVC_CHECK(!c.texts.empty() || c.task == "needle", kUsage,
            "--text: expected a file, got none; only --task needle can do without");
  KVC_CHECK(c.curriculum.empty() || c.task == "needle", kUsage,
            "--curriculum: expected --task needle, got --task {}", c.task);
}

struct Plan {
  kvc::ModelConfig config;
  std::unique_ptr<kvc::Tokenizer> tokenizer;
  std::unique_ptr<kvc::model::BatchSource> source;
  Json settings;  // what the batches depend on
};

// The configuration to train, with thin keys if --rank asks for them.
kvc::ModelConfig ReadConfig(const TrainCommand& c) {
  kvc::ModelConfig config = kvc::ParseModelConfig(kvc::ReadJsonFile(c.config), c.config);
  if (c.rank.empty()) return config;
  KVC_CHECK(!config.thin(), kUsage, "--rank: expected a config.json with full keys, got thin ones");
  const int64_t rank = kvc::factorize::RankFor(kvc::ParseRank(c.rank, "--rank"), config.head_width,
                                               kvc::KeyLayout::kRopePairs);
  const auto keys = kvc::model::ThinKeysFromScratch(config, rank);
  return kvc::ParseModelConfig(kvc::ConfigWithKeys(config, keys), c.config);
}

Plan MakePlan(const TrainCommand& c) {
  Plan plan;
  plan.config = ReadConfig(c);
  plan.tokenizer = kvc::Tokenizer::Load(c.tokenizer);
  KVC_CHECK(plan.tokenizer->vocab_size() <= plan.config.vocab_size, kBadInput,
            "{}: vocab_size: expected at least the tokenizer's {}, got {}", c.config,
            plan.tokenizer->vocab_size(), plan.config.vocab_size);
  const int64_t length = kvc::ParseLength(c.length, "--length");
  KVC_CHECK(length >= 2 && length <= plan.config.context_length, kUsage,
            "--length: expected 2 to the model's context of {}, got {}", plan.config.context_length,
            length);
  std::vector<std::string> documents;
  Json texts = Json::array();
  for (const std::string& path : c.texts) {
    for (std::string& document : kvc::ReadDocuments(path)) {
      documents.push_back(std::move(document));
    }
    texts.push_back(
        {{"file", fs::path(path).filename().string()}, {"sha256", kvc::Sha256File(path)}});
  }
  plan.settings = {
      {"init", c.initial.empty() ? "" : kvc::Sha256File(fs::path(c.initial) / "model.safetensors")},
      {"task", c.task},
      {"batch", c.batch},
      {"length", length},
      {"text", texts}};
  if (plan.config.thin()) plan.settings["keys"] = plan.config.source->at("kvc");
  if (c.task == "text") {
    plan.source = kvc::model::MakeTextSource(
        kvc::model::EncodeDocuments(*plan.tokenizer, documents, length), c.batch, length);
    return plan;
  }
  const std::vector<kvc::model::NeedleStage> stages =
      c.curriculum.empty()
          ? kvc::model::DefaultNeedleStages(length)
          : kvc::model::ParseNeedleStages(kvc::ReadJsonFile(c.curriculum), c.curriculum);
  plan.settings["curriculum"] = kvc::model::ToJson(stages);
  plan.source = kvc::model::MakeNeedleSource(
      *plan.tokenizer, kvc::model::EncodeDocuments(*plan.tokenizer, documents, 0), stages,
      c.batch * length);
  return plan;
}

// Every file and folder that is read. Of the tokenizer's folder, in which a user may well want the
// model, only its files.
std::vector<fs::path> InputsOf(const TrainCommand& c) {
  std::vector<fs::path> inputs = kvc::CompanionFiles(c.tokenizer);
  inputs.insert(inputs.end(), {c.config, c.curriculum, c.initial});
  inputs.insert(inputs.end(), c.texts.begin(), c.texts.end());
  return inputs;
}

Json Train(TrainCommand& c, const kvc::tools::CommonOptions& common) {
  if (c.list_words) {
    return {{"words", kvc::NeedleWords()}};
  }
  CheckOptions(c);
  kvc::model::SetThreads(kvc::tools::CheckCommonOptions(common));
  c.train.seed = common.seed;
  c.train.initial = c.initial;
  c.train.previous_token_head =
      c.task == "needle" && c.initial.empty() && !c.no_previous_token_head;
  c.train.dtype = kvc::DTypeFromShortName(c.dtype);
  if (c.tokenizer.empty()) {
    c.tokenizer = fs::path(c.config).parent_path().string();
  }
  Plan plan = MakePlan(c);
  const int64_t parameters = kvc::model::ParameterList(plan.config).count();
  Json result = {{"parameters", parameters},
                 {"weight_bytes", parameters * kvc::DTypeBytes(c.train.dtype)},
                 {"steps", c.train.steps},
                 {"settings", plan.settings}};
  if (common.dry_run) {
    return result;
  }
  const auto progress = kvc::tools::MakeProgress(common);
  kvc::OutputDirectory out(c.output, InputsOf(c), c.force, /*resumable=*/true);
  for (const fs::path& file : kvc::CompanionFiles(c.tokenizer)) {
    kvc::CopyFile(file, out.path() / file.filename());
  }
  kvc::WriteJsonFile(out.path() / "config.json", *plan.config.source);
  const kvc::model::TrainReport report =
      kvc::model::Train(plan.config, *plan.source, c.train, plan.settings, out.path(), *progress);
  out.Commit();
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
