#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "kernels/attention.h"
#include "kernels/cpu/attention_checks.h"
#include "kernels/cpu/decode_part.h"
#include "kernels/cpu/scratch.h"

namespace kvc::kernels {
namespace {

// Rows of a part: enough to be worth a thread, few enough that heads of different lengths share the
// threads evenly. Long heads have at most kMaxParts parts.
constexpr int64_t kPartRows = 256;
constexpr int64_t kMaxParts = 32;
// Floats of partial results whose merge is worth a thread.
constexpr int64_t kMergeGrain = 1 << 15;

// A consecutive piece of a head's rows.
struct Part {
  const DecodeHead* head = nullptr;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t partials = 0;  // where its results lie
};

int64_t CountRows(const DecodeHead& head) {
  int64_t rows = 0;
  for (const Segment& segment : head.segments) {
    if (segment.keys.rows > 0) {
      CheckRows(segment.keys, segment.values, head.rebuild, head.queries.cols, head.outputs.cols);
      KVC_CHECK(head.rebuild == nullptr || segment.positions != nullptr,
                kBadShape,
                "attention: expected positions with a rebuild, got none");
    }
    rows += segment.keys.rows;
  }
  KVC_CHECK(rows > 0, kBadShape, "attention: expected at least one cached row, got none");
  KVC_CHECK(head.queries.rows == head.outputs.rows,
            kBadShape,
            "attention: expected as many outputs as queries, got ",
            head.outputs.rows,
            " and ",
            head.queries.rows);
  return rows;
}

// Parts of equal size, a head's one after the other; returns the floats of all partial results.
int64_t SplitHead(const DecodeHead& head, int64_t partials, std::vector<Part>* parts) {
  const int64_t rows = CountRows(head);
  const int64_t count = std::min(kMaxParts, (rows + kPartRows - 1) / kPartRows);
  const int64_t part_rows = (rows + count - 1) / count;
  for (int64_t begin = 0; begin < rows; begin += part_rows) {
    parts->push_back({&head, begin, std::min(rows, begin + part_rows), partials});
    partials += head.queries.rows * PartialStride(head.outputs.cols);
  }
  return partials;
}

// outputs = (sum_p e^(m_p - m) o_p) / (sum_p e^(m_p - m) l_p), m = max_p m_p, parts in their order.
void MergeQuery(std::span<const Part> parts, const float* partials, int64_t query, float* output) {
  const int64_t width = parts[0].head->outputs.cols;
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

}  // namespace

void DecodeAttention(std::span<const DecodeHead> heads, float scale, ThreadPool& pool) {
  if (heads.empty()) {
    return;
  }
  std::vector<Part> parts;
  std::vector<size_t> first_part;
  int64_t size = 0;
  for (const DecodeHead& head : heads) {
    first_part.push_back(parts.size());
    size = SplitHead(head, size, &parts);
  }
  first_part.push_back(parts.size());
  float* partials = Scratch(ScratchUse::kPartials, size);
  pool.ParallelFor(static_cast<int64_t>(parts.size()), 1, [&](int64_t index, int64_t /*end*/) {
    const Part& part = parts[static_cast<size_t>(index)];
    AttendRows(*part.head, part.begin, part.end, scale, partials + part.partials);
  });
  const auto num_heads = static_cast<int64_t>(heads.size());
  const int64_t grain = std::max<int64_t>(1, kMergeGrain * num_heads / std::max<int64_t>(1, size));
  pool.ParallelFor(num_heads, grain, [&](int64_t begin, int64_t end) {
    for (auto h = static_cast<size_t>(begin); h < static_cast<size_t>(end); ++h) {
      const std::span<const Part> head_parts(parts.data() + first_part[h],
                                             first_part[h + 1] - first_part[h]);
      for (int64_t q = 0; q < heads[h].outputs.rows; ++q) {
        MergeQuery(head_parts, partials, q, heads[h].outputs.row(q));
      }
    }
  });
}

}  // namespace kvc::kernels
