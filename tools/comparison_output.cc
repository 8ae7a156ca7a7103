#include "tools/comparison_output.h"

#include <cstdio>

#include "tools/results_json.h"

namespace kvc::tools {
namespace {

void AddText(const choose::TextResult& text, Json& line) {
  line["choosing_seconds"] = text.choosing_seconds;
  if (text.token_seconds) line["token_seconds"] = *text.token_seconds;
  AddDivergence(text.divergence, line);
  AddWalk(text.divergence.model, line);
  line["prompt_share"] = text.prompt_share;
}

void PrintLine(const choose::ComparisonLine& line, const choose::Comparison& comparison) {
  std::printf("%-44s %-8s", line.name.c_str(), line.budget.c_str());
  if (line.text) {
    const eval::Divergence& divergence = line.text->divergence;
    const double perplexity = divergence.model.perplexity;
    const double against = comparison.lines[0].text->divergence.model.perplexity;
    std::printf(" %7.2f %% %8.4f %7.4f %8.4f %7.3f %8.3f (%+6.1f %%) %7.1f %%",
                100.0 * line.text->prompt_share, divergence.kld_mean, divergence.kld_stderr,
                divergence.kld_median, divergence.kld_p999, perplexity,
                100.0 * (perplexity / against - 1.0), 100.0 * divergence.same_top);
  }
  if (line.needles) {
    std::printf(" %4lld/%lld", static_cast<long long>(line.needles->found),
                static_cast<long long>(comparison.needles));
  }
  if (line.ruler) std::printf(" %6.1f %%", 100.0 * line.ruler->score);
  std::printf("\n");
}

}  // namespace

Json LinesToJson(const std::vector<choose::ComparisonLine>& lines) {
  Json array = Json::array();
  for (const choose::ComparisonLine& line : lines) {
    Json json = {{"name", line.name},
                 {"policy", line.policy},
                 {"budget", line.budget},
                 {"bundle", line.bundle},
                 {"method", MethodName(line.method)},
                 {"scorer", ToString(line.scorer)}};
    if (line.text) AddText(*line.text, json);
    if (line.needles) {
      json["cells"] = CellsToJson(line.needles->cells);
      json["needles_found"] = line.needles->found;
      json["needle_accuracy"] = line.needles->accuracy;
    }
    if (line.ruler) {
      json["ruler_score"] = line.ruler->score;
      json["ruler_cells"] = CellsToJson(line.ruler->cells);
    }
    array.push_back(std::move(json));
  }
  return array;
}

Json ComparisonToJson(const choose::Comparison& comparison) {
  Json json = {{"context", comparison.context},
               {"decode", comparison.decode},
               {"samples", comparison.samples},
               {"needles", comparison.needles},
               {"ruler_prompts", comparison.ruler_prompts},
               {"question", comparison.question_before ? "before" : "after"},
               {"lines", LinesToJson(comparison.lines)},
               {"impossible", Json::array()}};
  for (const choose::ImpossiblePolicy& policy : comparison.impossible) {
    json["impossible"].push_back(
        {{"name", policy.name}, {"budget", policy.budget}, {"reason", policy.reason}});
  }
  return json;
}

void PrintComparison(const choose::Comparison& comparison) {
  const choose::ComparisonLine& reference = comparison.lines[0];
  std::printf("%-44s %-8s", "policy", "budget");
  if (reference.text) {
    std::printf(" %9s %8s %7s %8s %7s %19s %9s", "bytes", "KLD", "+-", "median", "99.9 %",
                "perplexity", "same top");
  }
  if (reference.needles) std::printf(" needles");
  if (reference.ruler) std::printf("    ruler");
  std::printf("\n");
  for (const choose::ComparisonLine& line : comparison.lines) PrintLine(line, comparison);
  for (const choose::ImpossiblePolicy& policy : comparison.impossible) {
    std::printf("%-44s %-8s impossible: %s\n", policy.name.c_str(), policy.budget.c_str(),
                policy.reason.c_str());
  }
}

}  // namespace kvc::tools
