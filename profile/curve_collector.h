#pragma once
// Sums of utility curves over the windows of one profile run, filled layer by layer.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "profile/oracle.h"
#include "profile/output_error.h"
#include "profile/profile_model.h"
#include "profile/profile_state.h"

namespace kvc::profile {

// Name of the oracle's own curve beside those of the scorers.
inline constexpr const char* kOracleName = "oracle";
// Return the names of the sums of lost importance and of the attention output's error.
[[nodiscard]] std::string CurveSum(const std::string& name);
[[nodiscard]] std::string ErrorSum(const std::string& name);

// Scores of a window's tokens at a layer: [scorer][group] of [context], or of what the layer sees
// of the context.
using WindowScores = std::vector<std::vector<std::vector<float>>>;

// Collects the curves of steps 1 to 4 of profile/profile_model.h into sums that the caller owns.
// `config`, `options` and `sums` must outlive it.
class CurveCollector {
 public:
  CurveCollector(const ModelConfig& config, const ProfileOptions& options, ProfileSums& sums);

  // Adds one window at one layer. `taps` [1, ...] hold its projections, of the context, or of what
  // the layer sees of it, and of the horizon; `energy` [T] the squared norms of what the layer
  // reads (RowEnergies). The windows of a layer must come consecutively and in a fixed order for
  // the sums to be the same.
  void Visit(int64_t layer,
             const model::LayerTaps& taps,
             const model::LayerWeights& weights,
             const torch::Tensor& energy);

  // Returns the names of the sums that visits add to, [layers, ...] each.
  [[nodiscard]] std::vector<std::string> SumNames() const;
  // Return values of the last visit: M_h of the layer [H, D, D], and the scores by options.scorers.
  [[nodiscard]] const torch::Tensor& output_grams() const { return grams_; }
  [[nodiscard]] const WindowScores& scores() const { return scores_; }

 private:
  // A range of kv heads that keep the same tokens.
  struct HeadRange {
    int64_t layer = 0;
    int64_t first = 0;
    int64_t count = 0;
  };

  // A window at a layer.
  struct View {
    model::LayerTaps rows;
    torch::Tensor importance;             // [G, context]
    std::vector<HeadOutputError> errors;  // [G]
    double residual_energy = 0.0;         // mean over the window's queries
    int64_t context = 0;                  // tokens of `rows` in front of the horizon
  };

  [[nodiscard]] scorers::HeadInput InputOf(const View& view,
                                           int64_t kv_head,
                                           const scorers::Scorer& scorer) const;
  // Returns the scores [context] that order the tokens of the group.
  [[nodiscard]] std::vector<float> GroupScores(const scorers::Scorer& scorer,
                                               const HeadRange& group,
                                               const View& view) const;
  // Adds the curves of the group's heads when the tokens are ordered by `scores`.
  void AddCurves(const std::string& name,
                 const HeadRange& group,
                 std::span<const float> scores,
                 const View& view);

  const ModelConfig& config_;
  const ProfileOptions& options_;
  struct NamedScorer {
    std::string name;
    std::unique_ptr<scorers::Scorer> scorer;
  };
  std::vector<NamedScorer> scorers_;
  std::vector<double> frequencies_;  // [r/2] of the rotated layers
  ProfileSums& sums_;
  std::optional<ValueNorms> norms_;  // of layer weights_layer_
  torch::Tensor grams_;              // likewise: [H, D, D]
  int64_t weights_layer_ = -1;
  WindowScores scores_;  // of the last visit
};

}  // namespace kvc::profile
