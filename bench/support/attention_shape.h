#pragma once
// Shapes of a decode step's attention, as users write them (kvc-bench --shape).

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/row_format.h"

namespace kvc::bench {

// Made-up steps of rows `width` wide whose numbers are from -1 to 1, and runs of a mixture; nothing
// for formats without steps.
class CheapCode {
 public:
  CheapCode(const RowFormat& format, int64_t width);
  [[nodiscard]] CodeSteps steps() const;
  // What steps() points into.
  [[nodiscard]] std::span<const float> all_steps() const { return steps_; }

 private:
  bool mixed_ = false;
  int64_t width_ = 0;
  std::vector<float> steps_;
  RunEnds ends_ = {};
};

struct AttentionShape {
  int64_t query_heads = 32;  // H
  int64_t kv_heads = 8;      // G; divides H
  int64_t width = 128;       // D: of queries before the cache's layout, and of values
  int64_t key_width = 128;   // of a cached key; with a rebuild of the latent that the heads share
  int64_t tokens = 4096;     // T
  RowFormat format = {};     // with steps not of latents
  bool rebuild = false;      // latents become keys in every step, rotation included

  // Of devices (bench/device/device_attention.h):
  int64_t batch = 1;                  // B sequences
  double budget = 1.0;                // rows of a head, on average: this share of the tokens
  double skew = 1.0;                  // rows of the longest head over the mean, 1 .. G
  std::vector<double> tiers = {1.0};  // shares of the widths that rows keep, widest first

  // Returns the bytes of one layer's keys and values; with every token of one sequence.
  [[nodiscard]] int64_t LayerBytes() const;
  // Whether every head of one sequence keeps every token.
  [[nodiscard]] bool IsPlain() const;
};

// Parses "heads=32,kv=8,width=128,tokens=4k,dtype=f16"; also
//   key=32      thin keys; default: width
//   latent=256  one latent of that width for all heads, rebuilt in every step, in f32 with the unit
//               rows that kvc-export makes
//   batch=8     sequences
//   budget=25%  of the tokens are kept
//   skew=4      the longest head keeps 4 times as many as the mean: lengths are a geometric series
//   tiers=1/8+1/4+1   as many rows in each of the tiers
// Omitted parts have the defaults above. Throws kUsage naming --shape and the part.
[[nodiscard]] AttentionShape ParseAttentionShape(std::string_view text);

// Rows that each kv head [G] of a sequence keeps: a geometric series with the skew, whose sum is
// that of the budget. Sequences differ in which head is the longest.
[[nodiscard]] std::vector<int64_t> RowsOfHeads(const AttentionShape& shape, int64_t sequence);

// Splits a head's rows over the tiers [tiers]: as equal as can be.
[[nodiscard]] std::vector<int64_t> RowsOfTiers(const AttentionShape& shape, int64_t rows);

}  // namespace kvc::bench
