#pragma once
// The scores of a comparison so far, in memory and in a file from which an interrupted one resumes.

#include <filesystem>
#include <string>
#include <vector>

#include "eval/compare/compare.h"
#include "pipeline/choose/comparison.h"

namespace kvc::choose {

class ComparisonProgress {
 public:
  // Takes the scores of an earlier run from `file` if it exists; an empty path means no file.
  // Throws kUsage when they are of another comparison: another version, contestants, prompts or
  // options that change a number; kBadInput when it is not such a file.
  ComparisonProgress(std::filesystem::path file,
                     const CompareTasks& tasks,
                     const Contestants& contestants);
  void Save() const;

  std::vector<std::vector<eval::SampleScores>> samples;  // [sample][contestant]
  std::vector<std::vector<bool>> found;                  // [prompt][contestant]
  std::vector<std::vector<double>> ruler;                // [prompt][contestant]

 private:
  void Load();

  std::filesystem::path file_;
  std::string signature_;  // JSON of what the numbers depend on
};

}  // namespace kvc::choose
