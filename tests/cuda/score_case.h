#pragma once
// Random heads of a layer on the device and as the CPU's scorers take them, and how far float
// rounding may move the sums.

#include <deque>
#include <string>
#include <vector>

#include "core/base/row_format.h"
#include "kernels/cuda/scores.h"
#include "scorers/scorer.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {

// Cached rows on the device, and as floats what they decode to.
struct CodedRows {
  RowFormat format;
  int64_t rows, width, stride;  // bytes
  std::vector<float> values;    // [rows, width]
  DeviceArray<std::byte> device;

  CodedRows(const RowFormat& as, int64_t num, int64_t columns, int64_t pad, std::vector<float> x)
      : format(as),
        rows(num),
        width(columns),
        stride(RowBytes(as, columns) + pad),
        values(std::move(x)),
        device(Encode()) {}

  [[nodiscard]] CachedRows view() const {
    return {device.data(), RowCodeOf(format), static_cast<int32_t>(width), stride};
  }
  [[nodiscard]] ConstMatrixF host() const { return {values.data(), rows, width}; }

 private:
  std::vector<std::byte> Encode();
};

inline const std::vector<RowFormat> kRowFormats = {kRowsF32, kRowsF16, kRowsBF16, kRowsInt8};

struct ScoreShape {
  std::string name;
  std::vector<int64_t> tokens;  // of each kv head
  int64_t key_width = 64;
  int64_t value_width = 64;
  int64_t group = 3;
  int64_t window = 8;
  int64_t prompt_rows = 0;  // the last of them, up to as many as a head has tokens
  int64_t prompt = 0;       // of which up to so many are taken
  bool rope = true;
  // Tokens 0 and 5 have keys this far along the window's mean query and its last one.
  double dominance = 0.0;
};

class ScoreCase {
 public:
  static constexpr int64_t kSinks = 4;
  static constexpr int64_t kFuture = 64;
  static constexpr double kEnergy = 7.5;

  // One array for each kind of sum; empty where it is not wanted.
  struct Sums {
    std::vector<float> attention, error_sums, error_maxima, prompt_errors;
  };
  // Sums of one head in double, and how far each of them may be off in float.
  struct Bounds {
    std::vector<double> attention, error_sums, error_maxima, prompt_errors;
    std::vector<double> attention_bound, error_sums_bound, error_maxima_bound, prompt_errors_bound;
  };

  ScoreCase(const ScoreShape& shape, const RowFormat& format, Rng& rng);
  // What SumScores says of each head: attention, or errors, those of the prompt too.
  [[nodiscard]] std::vector<Sums> Run(bool attention, bool errors);
  // The input of the CPU's scorers; borrows from the case.
  [[nodiscard]] scorers::HeadInput Input(size_t head) const;
  // What goes with sums when they are finished: numbers, no arrays.
  [[nodiscard]] scorers::TokenSums Counts(size_t head) const;
  [[nodiscard]] Bounds BoundsOf(size_t head) const;
  // The table of heads without outputs.
  [[nodiscard]] std::vector<ScoreHead> Heads() const;
  [[nodiscard]] const ScoreShape& shape() const { return shape_; }
  [[nodiscard]] float scale() const { return scale_; }

  std::deque<CodedRows> keys, values;  // of each kv head

 private:
  struct Query {
    std::vector<float> x;      // as it enters the dot product
    std::vector<double> size;  // of what it was made of, for each element
    int64_t visible = 0;
    bool window = true;
    size_t head = 0;  // of all query heads
  };
  void MakeQueries(Rng& rng);
  void MakeTurns();
  void MakeGrams(Rng& rng);
  const float* Upload(const std::vector<float>& x);
  [[nodiscard]] int64_t PromptRows(size_t head) const;
  [[nodiscard]] std::vector<Query> QueriesOf(size_t head) const;
  void AddErrors(size_t head, const Query& query, Bounds& bounds) const;

  ScoreShape shape_;
  float scale_;
  std::vector<double> frequencies_;  // [D_k / 2]
  std::vector<float> cos_, sin_;     // [positions, D_k / 2]
  // Of each query head: [window, D_k]; [prompt rows, D_k] as stored and before rotation (of each
  // kv head's own rows); M [D, D].
  std::vector<std::vector<float>> window_, prompt_, unrotated_, grams_;
  std::deque<DeviceArray<float>> arrays_;
  const float* ring_ = nullptr;
  const float* stored_ = nullptr;
  const float* cos_device_ = nullptr;
  const float* sin_device_ = nullptr;
  std::vector<const float*> to_cos_, to_sin_, grams_device_;  // of each kv head
};

}  // namespace kvc::cuda
