#include "pipeline/choose/comparison_json.h"

#include "core/io/json.h"
#include "eval/compare/results_json.h"

namespace kvc::choose {
namespace {

void AddText(const TextResult& text, Json& line) {
  line["choosing_seconds"] = text.choosing_seconds;
  if (text.token_seconds) line["token_seconds"] = *text.token_seconds;
  eval::AddDivergence(text.divergence, line);
  eval::AddWalk(text.divergence.model, line);
  line["prompt_share"] = text.prompt_share;
}

}  // namespace

Json ToJson(const std::vector<ComparisonLine>& lines) {
  Json array = Json::array();
  for (const ComparisonLine& line : lines) {
    Json json = {{"name", line.name},
                 {"policy", line.policy},
                 {"budget", line.budget},
                 {"bundle", line.bundle},
                 {"method", MethodName(line.method)},
                 {"scorer", ToString(line.scorer)}};
    if (line.text) AddText(*line.text, json);
    if (line.needles) {
      json["cells"] = eval::CellsToJson(line.needles->cells);
      json["needles_found"] = line.needles->found;
      json["needle_accuracy"] = line.needles->accuracy;
    }
    if (line.ruler) {
      json["ruler_score"] = line.ruler->score;
      json["ruler_cells"] = eval::CellsToJson(line.ruler->cells);
    }
    array.push_back(std::move(json));
  }
  return array;
}

Json ToJson(const Comparison& comparison) {
  Json json = {{"context", comparison.context},
               {"decode", comparison.decode},
               {"samples", comparison.samples},
               {"needles", comparison.needles},
               {"ruler_prompts", comparison.ruler_prompts},
               {"question", comparison.question_before ? "before" : "after"},
               {"lines", ToJson(comparison.lines)},
               {"impossible", Json::array()}};
  for (const ImpossiblePolicy& policy : comparison.impossible) {
    json["impossible"].push_back(
        {{"name", policy.name}, {"budget", policy.budget}, {"reason", policy.reason}});
  }
  return json;
}

}  // namespace kvc::choose
