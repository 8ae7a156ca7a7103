#include "core/cache/bit_spread.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace kvc {
namespace {

constexpr int kLevels = static_cast<int>(kErrorLevels);
constexpr int kNone = kLevels - 1;  // the level without bits

int64_t BitsOf(int level) { return level == kNone ? 0 : kCodeBits[static_cast<size_t>(level)]; }

// One row: its blocks, their errors at each level, and the level that each has.
class Row {
 public:
  explicit Row(const ColumnErrors& columns) : width_(columns.width) {
    blocks_.resize(static_cast<size_t>((width_ + kColumnBlock - 1) / kColumnBlock));
    levels_.assign(blocks_.size(), kNone);
    for (int64_t i = 0; i < width_; ++i) {
      for (int level = 0; level < kLevels; ++level) {
        blocks_[i / kColumnBlock][level] += columns.errors[level * width_ + i];
      }
      if (columns.errors[kNone * width_ + i] > 0.0F) ++counted_;
    }
  }

  // Columns that are not zero throughout.
  [[nodiscard]] int64_t counted() const { return counted_; }

  // Bits of the row as it is stored, where its blocks have these levels.
  [[nodiscard]] int64_t Bits(const std::vector<int>& levels) const {
    int64_t bits = 0;
    for (size_t k = 0; k < levels.size(); ++k) bits += ColumnsOf(k) * BitsOf(levels[k]);
    return (bits + 31) / 32 * 32;
  }
  [[nodiscard]] int64_t bits() const { return Bits(levels_); }

  // Takes the levels that cost least at a price of `theta` for a bit.
  void Choose(double theta) {
    const size_t count = blocks_.size();
    std::vector<std::array<double, kLevels>> cost(count);  // of the blocks up to this one
    std::vector<std::array<int, kLevels>> before(count);   // level of the block before
    for (size_t k = 0; k < count; ++k) {
      double least = k == 0 ? 0.0 : std::numeric_limits<double>::infinity();
      int from = 0;
      for (int level = 0; level < kLevels; ++level) {
        if (k > 0 && cost[k - 1][level] <= least) {
          least = cost[k - 1][level];
          from = level;
        }
        before[k][level] = from;
        const bool allowed = k > 0 || level != kNone;
        cost[k][level] = allowed ? least + blocks_[k][level] +
                                       theta * static_cast<double>(ColumnsOf(k) * BitsOf(level))
                                 : std::numeric_limits<double>::infinity();
      }
    }
    int level = kNone;
    if (count == 0) return;
    for (int other = kNone; other >= 0; --other) {
      if (cost.back()[other] < cost.back()[level]) level = other;
    }
    for (size_t k = count; k-- > 0;) {
      levels_[k] = level;
      level = before[k][level];
    }
  }

  // The best way to give one block more bits, with at most `room` more: gain by the bit, negative
  // where there is none.
  struct Step {
    double gain = -1.0;
    size_t block = 0;
    int level = 0;
    int64_t bits = 0;
  };
  [[nodiscard]] Step BestStep(int64_t room) const {
    Step best;
    for (size_t k = 0; k < levels_.size(); ++k) {
      const bool first_of_run = k == 0 || levels_[k - 1] < levels_[k];
      if (!first_of_run) continue;
      for (int level = k == 0 ? 0 : levels_[k - 1]; level < levels_[k]; ++level) {
        std::vector<int> levels = levels_;
        levels[k] = level;
        const int64_t bits = Bits(levels) - this->bits();
        const double error = blocks_[k][levels_[k]] - blocks_[k][level];
        if (bits > room || !(error > 0.0)) continue;
        const double gain = error / static_cast<double>(std::max<int64_t>(bits, 1));
        if (gain > best.gain) best = {gain, k, level, bits};
      }
    }
    return best;
  }
  void Take(const Step& step) { levels_[step.block] = step.level; }

  [[nodiscard]] RunEnds ends() const {
    RunEnds ends = {};
    for (const int level : levels_) {
      for (int run = level; run < kNone; ++run) ends[run] += static_cast<int32_t>(kColumnBlock);
    }
    return ends;
  }

 private:
  [[nodiscard]] int64_t ColumnsOf(size_t block) const {
    return std::min(kColumnBlock, width_ - static_cast<int64_t>(block) * kColumnBlock);
  }

  int64_t width_;
  int64_t counted_ = 0;
  std::vector<std::array<double, kLevels>> blocks_;
  std::vector<int> levels_;  // never falling
};

int64_t ChooseAll(std::vector<Row>& rows, double theta) {
  int64_t bits = 0;
  for (Row& row : rows) {
    row.Choose(theta);
    bits += row.bits();
  }
  return bits;
}

// Gives blocks more bits, most gain by the bit first, while at most `room` more are taken.
void SpendRest(std::vector<Row>& rows, int64_t room) {
  for (;;) {
    Row::Step best;
    Row* of = nullptr;
    for (Row& row : rows) {
      const Row::Step step = row.BestStep(room);
      if (step.gain > best.gain) {
        best = step;
        of = &row;
      }
    }
    if (of == nullptr) return;
    of->Take(best);
    room -= best.bits;
  }
}

}  // namespace

std::vector<RunEnds> SpreadBits(std::span<const ColumnErrors> rows, int32_t rate) {
  std::vector<Row> all;
  int64_t columns = 0;
  for (const ColumnErrors& row : rows) columns += all.emplace_back(row).counted();
  const int64_t budget = columns * rate / 4;
  // Prices are powers of two: errors of floats and their sums lie between these.
  double low = -400.0;
  double high = 200.0;
  constexpr int kHalvings = 60;
  if (ChooseAll(all, std::exp2(low)) > budget) {
    for (int i = 0; i < kHalvings; ++i) {
      const double middle = 0.5 * (low + high);
      (ChooseAll(all, std::exp2(middle)) > budget ? low : high) = middle;
    }
    ChooseAll(all, std::exp2(high));
  }
  int64_t taken = 0;
  for (const Row& row : all) taken += row.bits();
  SpendRest(all, budget - taken);
  std::vector<RunEnds> ends;
  for (const Row& row : all) ends.push_back(row.ends());
  return ends;
}

}  // namespace kvc
