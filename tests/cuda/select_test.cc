#include "kernels/cuda/select.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/cuda/device_array.h"

namespace kvc::cuda {
namespace {

// Sorts rows by falling score, equal scores by row, and takes the first, in order of rows.
std::vector<int32_t> Best(const std::vector<float>& scores, int32_t count) {
  std::vector<int32_t> rows(scores.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  rows.resize(std::min<size_t>(static_cast<size_t>(count), rows.size()));
  std::sort(rows.begin(), rows.end());
  return rows;
}

// A table of selections, all executed in one launch.
class SelectionTable {
 public:
  void Add(const std::vector<float>& scores, int32_t count, bool with_best = true) {
    scores_.push_back(scores);
    expected_.push_back(Best(scores, count));
    const size_t size = expected_.back().size() + 1;  // one that stays as it is
    device_scores_.emplace_back(scores);
    chosen_.emplace_back(std::vector<int32_t>(size, -7));
    best_.emplace_back(std::vector<float>(size, -7.0F));
    Selection& selection = selections_.emplace_back();
    selection.scores = device_scores_.back().data();
    selection.chosen = chosen_.back().data();
    selection.best = with_best ? best_.back().data() : nullptr;
    selection.rows = static_cast<int32_t>(scores.size());
    selection.count = count;
  }

  void RunAndCompare() {
    const DeviceArray<Selection> table(selections_);
    SelectTop(table.data(), static_cast<int32_t>(selections_.size()), nullptr);
    for (size_t i = 0; i < selections_.size(); ++i) {
      std::vector<int32_t> chosen = expected_[i];
      std::vector<float> best;
      for (const int32_t row : chosen) {
        best.push_back(selections_[i].best != nullptr ? scores_[i][row] : -7.0F);
      }
      chosen.push_back(-7);
      best.push_back(-7.0F);
      ASSERT_EQ(chosen_[i].Host(), chosen)
          << selections_[i].count << " of " << selections_[i].rows << " rows";
      ASSERT_EQ(best_[i].Host(), best);
    }
  }

 private:
  std::vector<std::vector<float>> scores_;
  std::vector<std::vector<int32_t>> expected_;
  std::deque<DeviceArray<float>> device_scores_, best_;
  std::deque<DeviceArray<int32_t>> chosen_;
  std::vector<Selection> selections_;
};

std::vector<float> NormalScores(Rng& rng, int64_t rows) {
  std::vector<float> scores(static_cast<size_t>(rows));
  for (float& score : scores) score = static_cast<float>(rng.NextNormal());
  return scores;
}

TEST(SelectTop, TakesTheHighestScores) {
  Rng rng(61);
  UnderOrders([&] {
    SelectionTable table;
    for (const int64_t rows : {0, 1, 2, 31, 100, 1025}) {
      const std::vector<float> scores = NormalScores(rng, rows);
      for (const int64_t count : {int64_t{0}, int64_t{1}, rows / 3, rows - 1, rows, rows + 5}) {
        table.Add(scores, static_cast<int32_t>(std::max<int64_t>(count, 0)), count % 2 == 0);
      }
    }
    table.RunAndCompare();
  });
}

// More rows than a block loads at a time.
TEST(SelectTop, TakesTheHighestOfManyScores) {
  Rng rng(62);
  SelectionTable table;
  for (const int64_t rows : {8192, 8193, 20000}) {
    const std::vector<float> scores = NormalScores(rng, rows);
    for (const int64_t count : {int64_t{1}, rows / 4, rows - 1}) {
      table.Add(scores, static_cast<int32_t>(count));
    }
  }
  table.RunAndCompare();
}

TEST(SelectTop, TakesTheFirstOfEqualScores) {
  Rng rng(63);
  UnderOrders([&] {
    SelectionTable table;
    for (const int64_t values : {1, 2, 5}) {
      std::vector<float> scores(900);
      for (float& score : scores) score = static_cast<float>(rng.NextBelow(values)) - 2.0F;
      for (const int32_t count : {0, 1, 33, 450, 899, 900}) table.Add(scores, count);
    }
    table.RunAndCompare();
  });
  SelectionTable table;
  table.Add(std::vector<float>(9000, 0.25F), 8500);
  table.RunAndCompare();
}

// Pinned sinks are +infinity; zeros of both signs are equal; denormal numbers have an order.
TEST(SelectTop, KnowsTheOrderOfAllNumbers) {
  const std::vector<float> numbers = {INFINITY,  -INFINITY,  0.0F,       -0.0F,
                                      0x1p-149F, -0x1p-149F, 1.0F,       -1.0F,
                                      3.4e38F,   -3.4e38F,   1.0000001F, 0x1p-126F};
  Rng rng(64);
  SelectionTable table;
  for (int repeat = 0; repeat < 4; ++repeat) {
    std::vector<float> scores;
    for (int i = 0; i < 70; ++i) {
      scores.push_back(numbers[static_cast<size_t>(rng.NextBelow(std::ssize(numbers)))]);
    }
    for (int32_t count = 0; count <= 70; count += 10) table.Add(scores, count);
  }
  table.RunAndCompare();
  SelectionTable().RunAndCompare();
}

// Scores that differ in one digit of the selection alone.
TEST(SelectTop, LooksAtEveryDigit) {
  Rng rng(65);
  SelectionTable table;
  for (const int bit : {0, 9, 10, 20, 21, 30}) {
    std::vector<float> scores;
    for (int i = 0; i < 200; ++i) {
      const uint32_t bits = 0x3f000000U ^ (static_cast<uint32_t>(rng.NextBelow(2)) << bit);
      float score;
      std::memcpy(&score, &bits, sizeof(score));
      scores.push_back(rng.NextBelow(2) == 0 ? score : -score);
    }
    for (const int32_t count : {20, 77, 130, 199}) table.Add(scores, count);
  }
  table.RunAndCompare();
}

}  // namespace
}  // namespace kvc::cuda
