#pragma once
// The scores of a comparison so far, in memory of every rank and in a file of rank 0 from which an
// interrupted one resumes.

#include <filesystem>
#include <string>
#include <vector>

#include "core/base/ranks.h"
#include "core/io/json_fwd.h"
#include "eval/compare/compare.h"
#include "pipeline/choose/comparison.h"

namespace kvc::choose {

class ComparisonProgress {
 public:
  // No scores, and no file.
  ComparisonProgress() = default;
  // Takes the scores of an earlier run from `file` if it exists; an empty path means no file.
  // Throws kUsage when they are of another comparison: another version, contestants, prompts or
  // options that change a number, and when ranks disagree about these; kBadInput when it is not
  // such a file. Collective.
  ComparisonProgress(std::filesystem::path file,
                     const CompareTasks& tasks,
                     const Contestants& contestants,
                     Ranks& ranks);
  void Save() const;

  // Returns the scores as JSON, and takes them from it.
  [[nodiscard]] Json Scores() const;
  void TakeScores(const Json& json, const std::string& origin);

  std::vector<std::vector<eval::SampleScores>> samples;  // [sample][contestant]
  std::vector<std::vector<bool>> found;                  // [prompt][contestant]
  std::vector<std::vector<double>> ruler;                // [prompt][contestant]

 private:
  void Load();

  std::filesystem::path file_;  // empty on other ranks than 0
  std::string signature_;       // JSON of what the numbers depend on
};

}  // namespace kvc::choose
