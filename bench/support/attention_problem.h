#pragma once
// A decode step's attention on made-up numbers, for timing a kernel on a shape. It has the caches
// of several layers, so that reads go to memory and not to the processor's caches.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "bench/support/attention_shape.h"
#include "core/base/row_format.h"
#include "core/base/thread_pool.h"
#include "kernels/attention.h"

namespace kvc::bench {

// Rows [rows, width] in a format, in a CheapCode's steps, RowBytes apart, that are cheap to make:
// parts of a pattern of 3,000 different numbers.
[[nodiscard]] std::vector<char> CheapRows(int64_t rows, int64_t width, const RowFormat& format);

// Made-up tables that the rebuild of keys [positions, width] from latents of `rank` reads. The
// first `unit_rows` of its matrix are unit vectors.
class RebuildTables {
 public:
  RebuildTables(int64_t width, int64_t rank, int64_t positions, int64_t unit_rows = 0);
  RebuildTables(const RebuildTables&) = delete;
  RebuildTables& operator=(const RebuildTables&) = delete;
  // Returns the rebuild, which borrows from the object.
  [[nodiscard]] const kernels::KeyRebuild& rebuild() const { return rebuild_; }

 private:
  std::vector<float> matrix_, cos_, sin_;
  kernels::KeyRebuild rebuild_;
};

class AttentionProblem {
 public:
  // Makes as many layers as `least_bytes` of cache need. Throws kUsage for a shape of several
  // sequences, or whose heads are not alike.
  AttentionProblem(const AttentionShape& shape, int64_t least_bytes);
  // Runs the attention over the next layer's cache.
  void Step(ThreadPool& pool);
  // Returns the outputs [H, D] of the last step.
  [[nodiscard]] std::span<const float> outputs() const { return outputs_; }

 private:
  [[nodiscard]] kernels::DecodeHead HeadOf(const AttentionShape& shape, int64_t layer, int64_t g);

  CheapCode key_code_, value_code_;
  std::vector<char> keys_;    // [layers, G or 1, T, key_width] in the format
  std::vector<char> values_;  // [layers, G, T, D]
  std::vector<float> queries_, outputs_;
  std::vector<int32_t> positions_;
  std::optional<RebuildTables> rebuild_;
  std::vector<kernels::Segment> segments_;  // [layers * G]
  std::vector<std::vector<kernels::DecodeHead>> layers_;
  size_t next_ = 0;
};

}  // namespace kvc::bench
