#include "pipeline/train_stage.h"

#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/files.h"
#include "core/io/rank_facts.h"
#include "core/io/shared_output.h"
#include "core/io/text_input.h"
#include "core/tokenizer/tokenizer.h"
#include "factorize/layer_factors.h"
#include "factorize/modeling_file.h"
#include "model/needle_source.h"
#include "model/parameters.h"

namespace kvc::pipeline {
namespace {

namespace fs = std::filesystem;

void CheckRequest(const TrainRequest& request) {
  KVC_CHECK(!request.config.empty(), kUsage, "CONFIG: expected a config.json, got nothing");
  KVC_CHECK(!request.output.empty(), kUsage, "-o: expected an output directory, got nothing");
  KVC_CHECK(!request.texts.empty() || request.task == TrainTask::kNeedle, kUsage,
            "--text: expected a file, got none; only --task needle can do without");
  KVC_CHECK(request.curriculum.empty() || request.task == TrainTask::kNeedle, kUsage,
            "--curriculum: expected --task needle, got --task text");
}

fs::path TokenizerOf(const TrainRequest& request) {
  return request.tokenizer.empty() ? request.config.parent_path() : request.tokenizer;
}

// Returns every file and folder that is read. For the tokenizer's folder, into which a user may
// well want to write the model, it returns only the files.
std::vector<fs::path> InputsOf(const TrainRequest& request) {
  std::vector<fs::path> inputs = CompanionFiles(TokenizerOf(request));
  inputs.insert(inputs.end(), {request.config, request.curriculum, request.train.initial});
  inputs.insert(inputs.end(), request.texts.begin(), request.texts.end());
  return inputs;
}

// Returns the configuration to train, with thin keys if --rank asks for them.
ModelConfig ReadConfig(const TrainRequest& request) {
  const std::string origin = request.config.string();
  ModelConfig config = ParseModelConfig(ReadJsonFile(request.config), origin);
  if (!request.rank) return config;
  KVC_CHECK(!config.thin(), kUsage, "--rank: expected a config.json with full keys, got thin ones");
  const int64_t rank = factorize::RankFor(*request.rank, config.head_width, KeyLayout::kRopePairs);
  const auto keys = model::ThinKeysFromScratch(config, rank);
  return ParseModelConfig(ConfigWithKeys(config, keys), origin);
}

void CheckSizes(const TrainRequest& request, const ModelConfig& config, int64_t vocabulary) {
  KVC_CHECK(vocabulary <= config.vocab_size, kBadInput,
            "{}: vocab_size: expected at least the tokenizer's {}, got {}", request.config.string(),
            vocabulary, config.vocab_size);
  KVC_CHECK(request.length >= 2 && request.length <= config.context_length, kUsage,
            "--length: expected 2 to the model's context of {}, got {}", config.context_length,
            request.length);
}

// Returns what the batches depend on, except for a curriculum.
Json DescribeBatches(const TrainRequest& request, const ModelConfig& config) {
  Json texts = Json::array();
  for (const fs::path& path : request.texts) {
    texts.push_back({{"file", path.filename().string()}, {"sha256", Sha256File(path)}});
  }
  const fs::path& initial = request.train.initial;
  Json settings = {{"init", initial.empty() ? "" : Sha256File(initial / "model.safetensors")},
                   {"task", request.task == TrainTask::kNeedle ? "needle" : "text"},
                   {"batch", request.batch},
                   {"length", request.length},
                   {"text", texts}};
  if (config.thin()) settings["keys"] = config.source->at("kvc");
  return settings;
}

// Writes what stands beside the weights.
void WriteCompanions(const TrainRequest& request,
                     const TrainPlan& plan,
                     const fs::path& directory) {
  for (const fs::path& file : CompanionFiles(TokenizerOf(request))) {
    CopyFile(file, directory / file.filename());
  }
  if (plan.config.thin()) {
    factorize::WriteThinModel(plan.config, plan.config.keys, directory);
  } else {
    WriteJsonFile(directory / "config.json", *plan.config.source);
  }
}

}  // namespace

TrainPlan PlanTraining(const TrainRequest& request) {
  CheckRequest(request);
  TrainPlan plan;
  plan.config = ReadConfig(request);
  plan.parameters = model::ParameterList(plan.config).count();
  const auto tokenizer = Tokenizer::Load(TokenizerOf(request));
  CheckSizes(request, plan.config, tokenizer->vocab_size());
  std::vector<std::string> documents;
  for (const fs::path& path : request.texts) {
    for (std::string& document : ReadDocuments(path)) documents.push_back(std::move(document));
  }
  plan.settings = DescribeBatches(request, plan.config);
  if (request.task == TrainTask::kText) {
    plan.source =
        model::MakeTextSource(model::EncodeDocuments(*tokenizer, documents, request.length),
                              request.batch, request.length);
    return plan;
  }
  const std::vector<model::NeedleStage> stages =
      request.curriculum.empty()
          ? model::DefaultNeedleStages(request.length)
          : model::ParseNeedleStages(ReadJsonFile(request.curriculum), request.curriculum.string());
  plan.settings["curriculum"] = model::ToJson(stages);
  plan.source =
      model::MakeNeedleSource(*tokenizer, model::EncodeDocuments(*tokenizer, documents, 0), stages,
                              request.batch * request.length);
  return plan;
}

model::TrainReport RunTraining(const TrainRequest& request,
                               const TrainPlan& plan,
                               Progress& progress,
                               Ranks& ranks) {
  RankFacts facts = FactsOf(plan.settings);
  facts.emplace(facts.begin(), "config.json", plan.config.source->dump());
  CheckAgreement(ranks, facts);
  SharedOutput out(ranks, request.output, InputsOf(request), request.force, /*resumable=*/true);
  if (ranks.is_first()) WriteCompanions(request, plan, out.path());
  model::TrainOptions options = request.train;
  options.previous_token_head =
      request.task == TrainTask::kNeedle && options.initial.empty() && request.previous_token_head;
  model::TrainReport report =
      model::Train(plan.config, *plan.source, options, plan.settings, out.path(), progress, ranks);
  out.Commit();
  return report;
}

}  // namespace kvc::pipeline
