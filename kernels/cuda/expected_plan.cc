#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "kernels/cuda/expected_attention.h"

namespace kvc::cuda {
namespace {

constexpr int32_t kMostSplits = 32;
constexpr int32_t kFewestSplitQueries = 512;
constexpr int32_t kTile = 64;

void CheckHead(const ExpectedHead& head) {
  KVC_CHECK(head.rows >= 0 && head.group >= 1 && head.keys.width >= 1 && head.values.width >= 1 &&
                head.sinks >= 0 && (head.rows == 0 || head.sinks < head.rows),
            kBadShape, "expected attention: expected rows beside {} sinks, got {} of width {}",
            head.sinks, head.rows, head.keys.width);
  KVC_CHECK(head.group <= kMostScoreGroup, kUnsupported,
            "expected attention: expected at most {} query heads of a kv head, got {}",
            kMostScoreGroup, head.group);
  const int32_t width = std::max(head.keys.width, head.values.width);
  KVC_CHECK(width <= kMostScoreWidth, kUnsupported,
            "expected attention: expected a width of at most {}, got {}", kMostScoreWidth, width);
  const QueryRows& prompt = head.prompt;
  KVC_CHECK(prompt.data != nullptr && prompt.rows >= 1 && prompt.head_stride >= head.keys.width,
            kBadShape, "expected attention: expected queries of width {}, got {} rows {} apart",
            head.keys.width, prompt.rows, prompt.head_stride);
  KVC_CHECK((head.cos == nullptr && head.mean_cos == nullptr) || head.keys.width % 2 == 0,
            kBadShape, "expected attention: expected an even width to turn, got {}",
            head.keys.width);
}

// Takes the head's parts of the scratch memory from `next` on.
void Divide(int64_t& next, ExpectedHead& head) {
  const auto take = [&next](int64_t floats) {
    const int64_t begin = next;
    next += (floats + 3) / 4 * 4;
    return begin;
  };
  const int64_t group = head.group;
  const int64_t width = head.keys.width;
  head.scratch.sums = take(int64_t{2} * head.splits * group * width);
  head.scratch.means = take(group * width);
  head.scratch.products = take(head.splits * group * width * width);
  head.scratch.linear = take(group * width);
  head.scratch.square = take(group * width * width);
  head.scratch.logits = take(group * head.rows);
  head.scratch.tiles = take(group * ((int64_t{head.rows} + kTile - 1) / kTile) * 2);
  head.scratch.softmax = take(group * 2);
}

}  // namespace

ExpectedPlan PlanExpected(std::vector<ExpectedHead> heads) {
  ExpectedPlan plan;
  plan.width = 64;
  for (ExpectedHead& head : heads) {
    CheckHead(head);
    const int32_t parts = std::clamp(head.prompt.rows / kFewestSplitQueries, 1, kMostSplits);
    head.split_queries = ((head.prompt.rows + parts - 1) / parts + kTile - 1) / kTile * kTile;
    head.splits = (head.prompt.rows + head.split_queries - 1) / head.split_queries;
    Divide(plan.scratch_floats, head);
    plan.most_rows = std::max(plan.most_rows, head.rows);
    plan.most_splits = std::max(plan.most_splits, head.splits);
    plan.most_group = std::max(plan.most_group, head.group);
    if (std::max(head.keys.width, head.values.width) > 64) plan.width = kMostScoreWidth;
  }
  plan.heads = std::move(heads);
  return plan;
}

}  // namespace kvc::cuda
