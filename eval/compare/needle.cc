#include "eval/compare/needle.h"

#include "core/base/rng.h"
#include "core/io/json.h"
#include "eval/compare/compare.h"

namespace kvc::eval {

std::vector<NeedleCell> PlanNeedles(const Tokenizer& tokenizer,
                                    const std::string& haystack,
                                    const NeedleOptions& options) {
  const NeedleTask task(tokenizer, haystack);
  Rng rng(options.seed);
  std::vector<NeedleCell> cells;
  for (const int64_t length : options.lengths) {
    for (const double depth : options.depths) {
      NeedleCell cell;
      cell.length = length;
      cell.depth = depth;
      cell.samples = options.samples;
      for (int64_t s = 0; s < options.samples; ++s) {
        cell.prompts.push_back(task.Make({length, depth, options.distractors}, rng));
      }
      cells.push_back(std::move(cell));
    }
  }
  return cells;
}

NeedleResult MeasureNeedles(runtime::Session& session,
                            const Tokenizer& tokenizer,
                            std::vector<NeedleCell> cells,
                            const NeedleOptions& options,
                            Progress& progress,
                            Ranks& ranks) {
  const Contestant alone[] = {{"", &session, {}}};
  std::vector<const NeedlePrompt*> prompts;  // of all cells, one after the other
  for (const NeedleCell& cell : cells) {
    for (const NeedlePrompt& prompt : cell.prompts) prompts.push_back(&prompt);
  }
  const int64_t total = std::ssize(prompts);
  const std::vector<int64_t> own = ranks.PartsOf(total);
  std::vector<std::string> mine;
  for (const int64_t p : own) {
    const NeedleScore score = CompareNeedles(alone, tokenizer, {prompts[p], 1},
                                             options.question_before, options.policy)[0][0];
    mine.push_back(Json({{"found", score.found}, {"cache", CountersToJson(score.cache)}}).dump());
    progress.Report("needle", std::ssize(mine), std::ssize(own));
  }
  const std::vector<std::string> scores = ranks.AllGatherParts(mine, total);
  NeedleResult result;
  int64_t found = 0;
  auto next = scores.begin();
  for (NeedleCell& cell : cells) {
    int64_t found_here = 0;
    for (size_t p = 0; p < cell.prompts.size(); ++p) {
      const Json score = ParseJson(*next++, "needles");
      found_here += score.at("found").get<bool>() ? 1 : 0;
      result.cache.Add(CountersFromJson(score, "cache", "needles"));
    }
    cell.accuracy = static_cast<double>(found_here) / static_cast<double>(cell.prompts.size());
    found += found_here;
  }
  result.accuracy = total > 0 ? static_cast<double>(found) / static_cast<double>(total) : 0.0;
  result.cells = std::move(cells);
  return result;
}

}  // namespace kvc::eval
