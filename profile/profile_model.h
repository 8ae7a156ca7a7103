#pragma once
// The stage kvc-profile measures which scorer finds the tokens that each head will need, and how
// much is lost when the head may keep only some of them (docs/formats/profile.md).
//
// Each window has `context` tokens of calibration text that are cached and scored, then `horizon`
// tokens that show what was needed: the text's own, the model's continuation, or a question and the
// model's answer [LUKV]. At every layer and window the stage computes:
//   1. Oracle importance of each context token (profile/oracle.h).
//   2. Each scorer's scores as of the end of the context: it sees the context's keys, values and
//      queries only, as the runtime does at the end of a prefill.
//   3. A utility curve for each (kv head, scorer): importance lost when only the best tokens are
//      kept. Sinks and window are always kept, so they are neither ranked nor counted. The curve
//      `oracle` ranks by importance itself.
//   4. An error curve likewise: how far the attention's output is from the full cache's
//      (profile/output_error.h).
//   5. Moments of keys, queries and values, from which bases follow (profile/layer_grams.h).
//   6. When the layer's bases are known, error curves with tiers between kept and dropped, over
//      bytes instead of tokens (profile/mixed_curves.h).
// If the heads of a group share their tokens (latents of several heads), the group has one order,
// from the combined scores of its heads (scorers::CombineHeads; for the oracle, the sum of their
// importances). The curves are still each head's own loss under that order.
//
// Head importance is the oracle mass of the evictable tokens (the curves' first point), normalised
// over all heads of the model; or a head's contribution to answered needle questions
// (profile/needle_importance.h), if the model answers at least a quarter of them.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/cache/cache_spec.h"
#include "core/cache/profile_file.h"
#include "core/cache/tier_list.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/json.h"
#include "eval/tasks/needle_task.h"
#include "profile/layer_grams.h"
#include "scorers/scorer.h"

namespace kvc::profile {

// Source of the horizon: the text's own continuation, or the model's (model/continuation.h).
enum class Continuation { kTeacher, kSample };
[[nodiscard]] std::string_view ContinuationName(Continuation continuation);  // "teacher", "sample"
// Parses a name. Throws kUsage listing the names.
[[nodiscard]] Continuation ContinuationFromName(std::string_view name);

// Measure of how much a head matters: the oracle's mass, or answered needle questions.
enum class Importance { kOracle, kNeedle };
[[nodiscard]] std::string_view ImportanceName(Importance importance);  // "oracle", "needle"
// Parses a name. Throws kUsage listing the names.
[[nodiscard]] Importance ImportanceFromName(std::string_view name);

struct ProfileOptions {
  std::vector<ScorerSpec> scorers = {ScorerKind::kSnapKv};  // kvc-profile: DefaultScorer
  int64_t windows = 16;                                     // calibration windows wanted
  int64_t context = 1024;  // tokens of a window that are cached and scored
  int64_t horizon = 64;    // tokens after them
  int64_t sinks = 4;
  int64_t window = 32;  // newest tokens of the context: always kept, and snapkv's queries
  // Positions that the bases and steps of tiers should fit. None: all of the model's.
  std::optional<int64_t> positions = {};
  NamedTiers tiers =
      ParseNamedTiers("0,1/8,1/4,1", "tiers");  // of the curves with tiers; one: none
  Continuation continuation =
      Continuation::kTeacher;  // for the record: the caller makes the windows
  Importance importance = Importance::kOracle;
  int64_t needle_tests = 24;  // questions asked with kNeedle
};

// The scorer that keeps most of a model's output at equal bytes, among those that it can have: the
// output's error by the prompt's queries, or by the window's where keys are thin behind their
// rotation, which leaves no query to turn (docs/experiments/2026-11-rows-in-few-bits.md).
[[nodiscard]] ScorerSpec DefaultScorer(const ModelConfig& config);
// The tiers that do so: kBitTiers, or dimensions where keys are latents, whose bits devices refuse.
inline constexpr const char* kBitTiers = "1x8,x6,x4,x3,x2,x1";
[[nodiscard]] NamedTiers DefaultTiers(const ModelConfig& config);

// Returns the position at which window `index` of `count` begins for the bases and steps of tiers.
// Rotated keys vary little over the positions of one window where a pair of dimensions turns
// slowly: their mean would be the window's, and codes would not reach the keys of other positions.
// So windows are spread over the positions that are asked for, the i-th of n (from 0 on) behind the
// share (i / (n - 1))^2 of them: every sequence has the first positions, and few have the last
// ones. Attention, which sees distances alone, stays what it is. 0 for keys that are cached before
// their rotation, or have none.
[[nodiscard]] int64_t FirstPosition(const ModelConfig& config,
                                    const ProfileOptions& options,
                                    int64_t index,
                                    int64_t count);

// Throws kUsage for sizes that leave no token to rank or do not fit the model's context, and for
// repeated scorers; kUnsupported, by name, for what this version does not have.
void CheckProfileOptions(const ProfileOptions& options, const ModelConfig& config);

// Sizes of a run on several ranks.
struct ProfilePlan {
  int64_t windows = 0;
  int64_t tokens = 0;        // of all windows
  int64_t ranks = 1;         // rank 0 has as many windows as any
  int64_t hidden_bytes = 0;  // hidden states of all windows, in memory, and on disk while it runs
  int64_t memory_bytes = 0;  // estimate of a rank's peak, mapped weights not counted
};
[[nodiscard]] ProfilePlan PlanProfile(const ModelConfig& config,
                                      const ProfileOptions& options,
                                      int64_t num_windows,
                                      int64_t ranks = 1);

// Returns a layer's bases from its moments. The closed form belongs to another stage
// (factorize/key_basis.h), so the caller brings it (pipeline/profile_bases.h).
using BasisMaker = std::function<LayerBases(int64_t layer, const LayerGrams& grams)>;

struct ProfileInputs {
  std::vector<std::vector<int32_t>> windows;  // of context + horizon tokens each
  std::vector<NeedlePrompt> needles;          // only with Importance::kNeedle
  BasisMaker make_bases;
  // JSON object of what else the result depends on or should name (hashes of the calibration files,
  // seed); it becomes part of ProfileData::options.
  Json provenance;
};

// Profiles `checkpoint`, thin or not.
//   directory   exists; progress is saved in it after each layer. A run that finds progress there
//               resumes from it and gives the same result as an uninterrupted run; it throws
//               kUsage, naming the field, when the progress is of another run. The caller removes
//               it with RemoveProgress once the result is written.
//   ranks       share the windows, and each keeps the hidden states of its own; all return the same
//               result. A run may go on with another number of ranks.
// Collective. Throws kNumeric for weights or activations that are not finite, kUsage when ranks
// differ in what the result depends on.
[[nodiscard]] ProfileData ProfileModel(const Checkpoint& checkpoint,
                                       const ProfileInputs& inputs,
                                       const ProfileOptions& options,
                                       const std::filesystem::path& directory,
                                       Progress& progress,
                                       Ranks& ranks = OneRank());

// Tells whether ProfileModel has saved progress in `directory`; RemoveProgress removes it.
[[nodiscard]] bool HasProgress(const std::filesystem::path& directory);
void RemoveProgress(const std::filesystem::path& directory);

// Returns the share of the oracle importance of all evictable tokens that is lost when every head
// keeps the share `kept` of them under `scorer`, or in the oracle's own order when `scorer` is
// null.
[[nodiscard]] double MeanLoss(const ProfileData& profile, const ScorerSpec* scorer, double kept);

}  // namespace kvc::profile
