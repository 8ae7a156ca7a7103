#include "scorers/checks.h"

#include <array>
#include <cmath>

#include "core/base/error.h"

namespace kvc::scorers {
namespace {

void CheckQueries(const Scorer& scorer,
                  const char* what,
                  const std::vector<ConstMatrixF>& queries,
                  int64_t key_width) {
  const std::string_view name = ScorerName(scorer.kind());
  KVC_CHECK(!queries.empty(), kBadShape, "{}: expected {} of each query head, got none", name,
            what);
  for (const ConstMatrixF& head_queries : queries) {
    const bool fits = head_queries.cols == key_width && head_queries.rows > 0 &&
                      head_queries.rows == queries.front().rows;
    KVC_CHECK(fits, kBadShape,
              "{}: expected as many of {} for each head, one or more, of width {}, got [{}, {}]",
              name, what, key_width, head_queries.rows, head_queries.cols);
  }
}

void CheckOutput(const Scorer& scorer, const HeadInput& head) {
  bool fits = head.output_grams.size() == head.queries.size();
  for (const ConstMatrixF& gram : head.output_grams) {
    fits = fits && gram.rows == head.values.cols && gram.cols == head.values.cols;
  }
  KVC_CHECK(fits, kBadShape,
            "{}: expected for each query head an output matrix of {} rows and columns, got {} for "
            "{} heads or another size",
            ScorerName(scorer.kind()), head.values.cols, head.output_grams.size(),
            head.queries.size());
}

}  // namespace

void CheckInput(const Scorer& scorer, const HeadInput& head, std::span<const float> scores) {
  KVC_CHECK(
      head.values.rows == head.keys.rows && static_cast<int64_t>(scores.size()) == head.keys.rows,
      kBadShape, "{}: expected as many values and scores as keys ({}), got {} and {}",
      ScorerName(scorer.kind()), head.keys.rows, head.values.rows, scores.size());
  if (head.keys.rows == 0) return;
  if (scorer.needs_queries()) {
    CheckQueries(scorer, "the window's queries", head.queries, head.keys.cols);
  }
  if (scorer.needs_prompt_queries()) {
    CheckQueries(scorer, "the prompt's queries", head.prompt_queries, head.keys.cols);
  }
  if (scorer.needs_output()) CheckOutput(scorer, head);
}

void CheckFrequencies(const Scorer& scorer, const HeadInput& head) {
  const int64_t rotary = head.rotary_width > 0 ? head.rotary_width : head.keys.cols;
  KVC_CHECK(rotary <= head.keys.cols &&
                (head.rope_frequencies.empty() || 2 * std::ssize(head.rope_frequencies) == rotary),
            kBadShape, "{}: expected {} rope frequencies, got {}", ScorerName(scorer.kind()),
            rotary / 2, head.rope_frequencies.size());
}

void CheckFinite(const Scorer& scorer, std::span<const float> scores) {
  for (size_t j = 0; j < scores.size(); ++j) {
    KVC_CHECK(std::isfinite(scores[j]), kNumeric,
              "{}: token {}: expected a finite score, got {}; check the model's weights for NaN",
              ScorerName(scorer.kind()), j, scores[j]);
  }
}

void CheckSums(const Scorer& scorer, std::span<const float> sums, std::span<const float> scores) {
  KVC_CHECK(sums.size() == scores.size(), kBadShape, "{}: expected {} sums, got {}",
            ScorerName(scorer.kind()), scores.size(), sums.size());
  CheckFinite(scorer, sums);
}

float Dot(const float* a, const float* b, int64_t count) {
  constexpr int64_t kLanes = 16;
  std::array<float, kLanes> lanes{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < count; ++i) lanes[i % kLanes] += a[i] * b[i];
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

float Norm(const float* a, int64_t count) { return std::sqrt(Dot(a, a, count)); }

}  // namespace kvc::scorers
