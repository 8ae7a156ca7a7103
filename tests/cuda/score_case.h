#pragma once
// Random heads of a layer on the device and as the CPU's scorers take them, and how far float
// rounding may move the sums.

#include <deque>
#include <string>
#include <vector>

#include "core/base/row_format.h"
#include "kernels/cuda/scores.h"
#include "scorers/scorer.h"
#include "tests/cuda/cached_plane.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {

// Cached rows on the device, and as floats what they decode to.
struct CodedRows : CachedPlane {
  std::vector<float> values;  // [rows, width]

  CodedRows(
      const RowFormat& as, int64_t num, int64_t columns, int64_t pad, const std::vector<float>& x)
      : CachedPlane(as, num, columns, pad, 0, x), values(Decoded(bytes)) {}

  [[nodiscard]] ConstMatrixF host() const { return {values.data(), rows, width}; }
};

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
  // What one query of a head sees, in double.
  struct View {
    std::vector<float> x;      // the query as it enters the dot product
    std::vector<double> size;  // magnitudes of what it was made of, for each element
    bool window = true;        // or of the prompt
    const std::vector<float>* gram = nullptr;
    std::vector<double> a;          // [T], attention
    int64_t dominant = 0;           // the token with the most attention
    double rest = 0.0;              // attention of all others
    std::vector<double> o, others;  // [D], its output with and without that token
    std::vector<double> o_size;     // [D], sums of the magnitudes of the terms of o
    // A bound of the relative error of attention in float: a logit is off by (D_k + 10) u of its
    // terms' magnitudes (its sum, the scale, the query's two turns), so is the largest one, and
    // sums of T weights in 16 or more lanes are off by T / 16 u.
    double rounding = 0.0;
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
  [[nodiscard]] std::vector<View> Views(size_t head) const;
  [[nodiscard]] Bounds BoundsOf(size_t head) const;
  // The table of heads without outputs.
  [[nodiscard]] std::vector<ScoreHead> Heads() const;
  [[nodiscard]] const ScoreShape& shape() const { return shape_; }
  [[nodiscard]] float scale() const { return scale_; }

  std::deque<CodedRows> keys, values;  // of each kv head

 private:
  void MakeQueries(Rng& rng);
  void MakeTurns();
  void MakeGrams(Rng& rng);
  const float* Upload(const std::vector<float>& x);
  [[nodiscard]] int64_t PromptRows(size_t head) const;
  void Look(size_t head, int64_t visible, View& view) const;
  void AddErrors(size_t head, const View& view, Bounds& bounds) const;

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

// x M y^T of rows [D], M [D, D].
[[nodiscard]] double Form(const std::vector<double>& x,
                          const std::vector<float>& gram,
                          const std::vector<double>& y);
// |x| |M| |y|^T of their magnitudes.
[[nodiscard]] double FormOfSizes(const std::vector<double>& x,
                                 const std::vector<float>& gram,
                                 const std::vector<double>& y);

}  // namespace kvc::cuda
