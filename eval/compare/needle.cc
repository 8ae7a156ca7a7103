#include "eval/compare/needle.h"

#include "core/base/rng.h"
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
                            Progress& progress) {
  const Contestant alone[] = {{"", &session, {}}};
  NeedleResult result;
  int64_t total = 0;
  int64_t done = 0;
  int64_t found = 0;
  for (const NeedleCell& cell : cells) total += static_cast<int64_t>(cell.prompts.size());
  for (NeedleCell& cell : cells) {
    int64_t found_here = 0;
    for (const NeedlePrompt& prompt : cell.prompts) {
      const NeedleScore score = CompareNeedles(alone, tokenizer, {&prompt, 1},
                                               options.question_before, options.policy)[0][0];
      found_here += score.found ? 1 : 0;
      result.cache.Add(score.cache);
      progress.Report("needle", ++done, total);
    }
    cell.accuracy = static_cast<double>(found_here) / static_cast<double>(cell.prompts.size());
    found += found_here;
  }
  result.accuracy = total > 0 ? static_cast<double>(found) / static_cast<double>(total) : 0.0;
  result.cells = std::move(cells);
  return result;
}

}  // namespace kvc::eval
