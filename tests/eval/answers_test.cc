#include "eval/compare/answers.h"

#include <vector>

#include <gtest/gtest.h>

namespace kvc::eval {
namespace {

TEST(TaskScores, MeanOverCells) {
  std::vector<TaskPrompt> prompts(5);
  const char* tasks[] = {"a", "a", "b", "a", "b"};
  const int64_t lengths[] = {1, 1, 1, 2, 1};
  for (int i = 0; i < 5; ++i) {
    prompts[i].task = tasks[i];
    prompts[i].length = lengths[i];
  }
  const std::vector<double> scores = {1.0, 0.0, 0.5, 1.0, 0.5};
  const TaskScores result = SummariseTasks(prompts, scores);
  ASSERT_EQ(result.cells.size(), 3U);
  EXPECT_EQ(result.cells[0].samples, 2);
  EXPECT_DOUBLE_EQ(result.cells[0].score, 0.5);
  EXPECT_DOUBLE_EQ(result.cells[0].score_stderr, 0.5);  // sqrt(0.5 / 2)
  EXPECT_DOUBLE_EQ(result.cells[1].score_stderr, 0.0);
  EXPECT_EQ(result.cells[2].score_stderr, 0.0);
  EXPECT_NEAR(result.score, (0.5 + 0.5 + 1.0) / 3, 1e-15);
}

}  // namespace
}  // namespace kvc::eval
