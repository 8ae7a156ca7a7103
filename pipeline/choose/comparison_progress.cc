#include "pipeline/choose/comparison_progress.h"

#include <utility>

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/io/files.h"
#include "core/io/json.h"

namespace kvc::choose {
namespace {

std::string IdsDigest(const CompareTasks& tasks) {
  std::string digests;
  const auto add = [&](const std::vector<int32_t>& ids) {
    digests += Sha256(std::as_bytes(std::span(ids)));
  };
  for (const auto& sample : tasks.samples) add(sample);
  for (const auto& cell : tasks.cells) {
    for (const NeedlePrompt& prompt : cell.prompts) {
      add(prompt.context);
      add(prompt.question);
    }
  }
  for (const eval::TaskPrompt& prompt : tasks.ruler) {
    add(prompt.asked.context);
    add(prompt.asked.question);
  }
  return Sha256(std::as_bytes(std::span(digests)));
}

// Returns what the numbers depend on.
Json SignatureOf(const CompareTasks& tasks, const Contestants& contestants) {
  Json records = Json::array();
  for (const ContestantRecord& record : contestants.records) {
    records.push_back({{"name", record.name},
                       {"policy", record.policy},
                       {"budget", record.budget},
                       {"bundle", record.bundle},
                       {"weights", record.weights},
                       {"cache_sha256", record.cache_sha256}});
  }
  return {{"kvc", Version()},
          {"device", contestants.device},
          {"contestants", records},
          {"ids_sha256", IdsDigest(tasks)},
          {"context", tasks.walk.context},
          {"decode", tasks.walk.decode},
          {"append", tasks.walk.policy == runtime::DecodePolicy::kAppend},
          {"question_before", tasks.needle.question_before}};
}

}  // namespace

ComparisonProgress::ComparisonProgress(std::filesystem::path file,
                                       const CompareTasks& tasks,
                                       const Contestants& contestants,
                                       Ranks& ranks)
    : file_(ranks.is_first() ? std::move(file) : std::filesystem::path()),
      signature_(SignatureOf(tasks, contestants).dump()) {
  if (!file_.empty() && std::filesystem::exists(file_)) Load();
  if (ranks.is_only()) return;
  const std::string digest = Sha256(std::as_bytes(std::span(signature_)));
  CheckAgreement(ranks, {{"bundles, profiles and prompts", digest}});
  const std::string scores = ranks.Broadcast(ranks.is_first() ? Scores().dump() : "");
  if (!ranks.is_first()) TakeScores(ParseJson(scores, "rank 0"), "rank 0");
}

Json ComparisonProgress::Scores() const {
  Json json = {{"samples", Json::array()}, {"found", found}, {"ruler", ruler}};
  for (const auto& sample : samples) {
    Json row = Json::array();
    for (const eval::SampleScores& scores : sample) row.push_back(scores.ToJson());
    json["samples"].push_back(std::move(row));
  }
  return json;
}

void ComparisonProgress::TakeScores(const Json& json, const std::string& origin) {
  for (const Json& row : GetArray(json, "samples", origin)) {
    auto& sample = samples.emplace_back();
    for (const Json& scores : row) sample.push_back(eval::SampleScores::FromJson(scores, origin));
  }
  for (const Json& row : GetArray(json, "found", origin)) {
    found.push_back(row.get<std::vector<bool>>());
  }
  for (const Json& row : GetArray(json, "ruler", origin)) {
    ruler.push_back(row.get<std::vector<double>>());
  }
}

void ComparisonProgress::Save() const {
  if (file_.empty()) return;
  Json json = Scores();
  json["signature"] = Json::parse(signature_);
  WriteJsonFile(file_, json);
}

void ComparisonProgress::Load() {
  const Json json = ReadJsonFile(file_);
  const std::string origin = file_.string();
  KVC_CHECK(GetObject(json, "signature", origin).dump() == signature_, kUsage,
            "{}: expected the progress of this comparison, got that of another one; use the same "
            "inputs to go on, or --force to start anew",
            origin);
  TakeScores(json, origin);
}

}  // namespace kvc::choose
