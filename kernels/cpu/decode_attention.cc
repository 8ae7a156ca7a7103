#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "kernels/attention.h"
#include "kernels/cpu/attention_checks.h"
#include "kernels/cpu/decode_part.h"
#include "kernels/cpu/scratch.h"

namespace kvc::kernels {
namespace {

// The rows of a part: enough to be worth a thread, few enough that heads of different lengths share
// the threads evenly. Long heads have at most kMaxParts parts.
constexpr int64_t kPartRows = 256;
constexpr int64_t kMaxParts = 32;
// The floats of partial results whose merge is worth a thread.
constexpr int64_t kMergeGrain = 1 << 15;

// The most heads that attend together when they rebuild keys at the same positions: enough to share
// the work on latents and angles, few enough that a layer still has parts for all threads.
constexpr size_t kMostShared = 4;

// A range of the rows of one head, or of several heads that keep the same tokens.
struct Part {
  std::span<const DecodeHead> heads;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t partials = 0;  // offset of its results
};

// Heads that attend together, and their parts, which the merge reads.
struct Group {
  std::span<const DecodeHead> heads;
  size_t first_part = 0;
  size_t end_part = 0;
};

int64_t CountRows(const DecodeHead& head) {
  int64_t rows = 0;
  for (const Segment& segment : head.segments) {
    if (segment.keys.rows > 0) {
      CheckRows(segment.keys, segment.values, head.rebuild, head.queries.cols, head.outputs.cols);
      KVC_CHECK(head.rebuild == nullptr || segment.positions != nullptr, kBadShape,
                "attention: expected positions with a rebuild, got none");
    }
    rows += segment.keys.rows;
  }
  KVC_CHECK(rows > 0, kBadShape, "attention: expected at least one cached row, got none");
  KVC_CHECK(head.queries.rows == head.outputs.rows, kBadShape,
            "attention: expected as many outputs as queries, got {} and {}", head.outputs.rows,
            head.queries.rows);
  return rows;
}

// True when two heads keep the same tokens of a segment, as heads with the same latents do.
bool SameTokens(const Segment& a, const Segment& b) {
  const int64_t rows = a.keys.rows;
  if (rows != b.keys.rows || a.positions == nullptr || b.positions == nullptr) {
    return false;
  }
  return a.positions == b.positions || std::equal(a.positions, a.positions + rows, b.positions);
}

// True when both heads rebuild keys of one size at the same positions with the same tables.
bool ShareParts(const DecodeHead& a, const DecodeHead& b) {
  if (a.rebuild == nullptr || b.rebuild == nullptr || a.rebuild->cos.data != b.rebuild->cos.data ||
      a.rebuild->sin.data != b.rebuild->sin.data) {
    return false;
  }
  return a.queries.rows == b.queries.rows && a.queries.cols == b.queries.cols &&
         a.outputs.cols == b.outputs.cols && std::ranges::equal(a.segments, b.segments, SameTokens);
}

// The heads from the front on that share parts.
std::span<const DecodeHead> TakeGroup(std::span<const DecodeHead> heads) {
  size_t count = 1;
  while (count < std::min(heads.size(), kMostShared) && ShareParts(heads[0], heads[count])) {
    ++count;
  }
  return heads.first(count);
}

// Appends the parts of a group, which are of equal size. Returns the offset after its partial
// results, which begin at `partials`.
int64_t SplitHeads(std::span<const DecodeHead> heads, int64_t partials, std::vector<Part>* parts) {
  int64_t rows = 0;
  for (const DecodeHead& head : heads) {
    rows = CountRows(head);
  }
  const int64_t count = std::min(kMaxParts, (rows + kPartRows - 1) / kPartRows);
  const int64_t part_rows = (rows + count - 1) / count;
  for (int64_t begin = 0; begin < rows; begin += part_rows) {
    parts->push_back({heads, begin, std::min(rows, begin + part_rows), partials});
    partials += std::ssize(heads) * heads[0].queries.rows * PartialStride(heads[0].outputs.cols);
  }
  return partials;
}

// outputs = (sum_p e^(m_p - m) o_p) / (sum_p e^(m_p - m) l_p), m = max_p m_p, parts in their order.
// `query` counts through the queries of the group's heads.
void MergeQuery(std::span<const Part> parts, const float* partials, int64_t query, float* output) {
  const int64_t width = parts[0].heads[0].outputs.cols;
  const int64_t offset = query * PartialStride(width);
  float maximum = -std::numeric_limits<float>::infinity();
  for (const Part& part : parts) {
    maximum = std::max(maximum, partials[part.partials + offset]);
  }
  std::fill_n(output, width, 0.0F);
  float sum = 0.0F;
  for (const Part& part : parts) {
    const float* partial = partials + part.partials + offset;
    const float weight = std::exp(partial[0] - maximum);
    sum += weight * partial[1];
    for (int64_t c = 0; c < width; ++c) {
      output[c] += weight * partial[kPartialHeader + c];
    }
  }
  for (int64_t c = 0; c < width; ++c) {
    output[c] /= sum;
  }
}

void MergeGroup(const Group& group, std::span<const Part> parts, const float* partials) {
  const auto own = parts.subspan(group.first_part, group.end_part - group.first_part);
  int64_t query = 0;
  for (const DecodeHead& head : group.heads) {
    for (int64_t q = 0; q < head.outputs.rows; ++q) {
      MergeQuery(own, partials, query++, head.outputs.row(q));
    }
  }
}

}  // namespace

void DecodeAttention(std::span<const DecodeHead> heads, float scale, ThreadPool& pool) {
  if (heads.empty()) {
    return;
  }
  // Kept from step to step, so that a step allocates nothing; threads of the pool see the caller's.
  thread_local std::vector<Part> kept_parts;
  thread_local std::vector<Group> kept_groups;
  std::vector<Part>& parts = kept_parts;
  std::vector<Group>& groups = kept_groups;
  parts.clear();
  groups.clear();
  int64_t size = 0;
  for (size_t h = 0; h < heads.size(); h += groups.back().heads.size()) {
    Group& group = groups.emplace_back(Group{TakeGroup(heads.subspan(h)), parts.size(), 0});
    size = SplitHeads(group.heads, size, &parts);
    group.end_part = parts.size();
  }
  float* partials = Scratch(ScratchUse::kPartials, size);
  const auto attend = [&](int64_t index, int64_t /*end*/) {
    const Part& part = parts[static_cast<size_t>(index)];
    AttendRows(part.heads, part.begin, part.end, scale, partials + part.partials);
  };
  pool.ParallelFor(static_cast<int64_t>(parts.size()), 1, std::ref(attend));
  const auto num_groups = static_cast<int64_t>(groups.size());
  const int64_t grain = std::max<int64_t>(1, kMergeGrain * num_groups / std::max<int64_t>(1, size));
  const auto merge = [&](int64_t begin, int64_t end) {
    for (auto g = static_cast<size_t>(begin); g < static_cast<size_t>(end); ++g) {
      MergeGroup(groups[g], parts, partials);
    }
  };
  pool.ParallelFor(num_groups, grain, std::ref(merge));
}

}  // namespace kvc::kernels
