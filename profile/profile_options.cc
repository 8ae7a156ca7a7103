#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/error.h"
#include "profile/profile_model.h"

namespace kvc::profile {
namespace {

// float32 everywhere
constexpr int64_t kFloatBytes = 4;

// Windows in flight: two workers' and the one that is being scored.
constexpr int64_t kWindowsInFlight = 3;

void CheckSizes(const ProfileOptions& options, const ModelConfig& config) {
  KVC_CHECK(options.windows >= 1, kUsage, "--windows: expected 1 or more, got {}", options.windows);
  KVC_CHECK(options.horizon >= 1, kUsage, "--horizon: expected 1 or more, got {}", options.horizon);
  KVC_CHECK(options.sinks >= 0, kUsage, "--sinks: expected 0 or more, got {}", options.sinks);
  KVC_CHECK(options.window >= 1, kUsage, "--window: expected 1 or more, got {}", options.window);
  KVC_CHECK(options.context > options.sinks + options.window, kUsage,
            "--context: expected more than the {} sinks and the window of {} that are always kept, "
            "got {}",
            options.sinks, options.window, options.context);
  KVC_CHECK(options.context + options.horizon <= config.context_length, kUsage,
            "--context and --horizon: expected at most {} tokens together, which is the model's "
            "context, got {}; lower --context",
            config.context_length, options.context + options.horizon);
}

}  // namespace

std::string_view ContinuationName(Continuation continuation) {
  return continuation == Continuation::kSample ? "sample" : "teacher";
}

Continuation ContinuationFromName(std::string_view name) {
  KVC_CHECK(name == "teacher" || name == "sample", kUsage,
            "--continuation: expected teacher or sample, got {}", name);
  return name == "sample" ? Continuation::kSample : Continuation::kTeacher;
}

std::string_view ImportanceName(Importance importance) {
  return importance == Importance::kNeedle ? "needle" : "oracle";
}

Importance ImportanceFromName(std::string_view name) {
  KVC_CHECK(name == "oracle" || name == "needle", kUsage,
            "--importance: expected oracle or needle, got {}", name);
  return name == "needle" ? Importance::kNeedle : Importance::kOracle;
}

ScorerSpec DefaultScorer(const ModelConfig& config) {
  return ParseScorer(
      KeysBehindRotation(config.keys.layout) ? "output-error" : "output-error:prompt=1024",
      "--scorer");
}

NamedTiers DefaultTiers(const ModelConfig& config) {
  const bool latent = config.keys.layout == KeyLayout::kLatent;
  return ParseNamedTiers(latent ? "0,1/8,1/4,1" : kBitTiers, "--tiers");
}

int64_t FirstPosition(const ModelConfig& config,
                      const ProfileOptions& options,
                      int64_t index,
                      int64_t count) {
  if (!config.has_rope || config.keys.layout == KeyLayout::kLatent || count < 2) return 0;
  const int64_t length = options.context + options.horizon;
  const int64_t last = options.positions.value_or(config.context_length) - length;
  const double share = static_cast<double>(index) / static_cast<double>(count - 1);
  return static_cast<int64_t>(static_cast<double>(std::max<int64_t>(last, 0)) * share * share);
}

void CheckProfileOptions(const ProfileOptions& options, const ModelConfig& config) {
  CheckSizes(options, config);
  if (options.positions) {
    KVC_CHECK(*options.positions >= options.context + options.horizon &&
                  *options.positions <= config.context_length,
              kUsage, "--positions: expected {} (a window) to {} (the model's), got {}",
              options.context + options.horizon, config.context_length, *options.positions);
  }
  KVC_CHECK(!options.scorers.empty(), kUsage, "--scorer: expected one or more, got none");
  std::set<ScorerSpec> seen;
  for (const ScorerSpec& spec : options.scorers) {
    KVC_CHECK(seen.insert(spec).second, kUsage, "--scorer: expected each scorer once, got {} twice",
              ToString(spec));
    static_cast<void>(scorers::Scorer::Create(spec));  // throws what it cannot do
  }
  KVC_CHECK(options.needle_tests >= 4, kUsage, "--needle-tests: expected 4 or more, got {}",
            options.needle_tests);
}

ProfilePlan PlanProfile(const ModelConfig& config,
                        const ProfileOptions& options,
                        int64_t num_windows,
                        int64_t ranks) {
  const int64_t length = options.context + options.horizon;
  const int64_t attention_width = (2 * config.num_heads + 2 * config.num_kv_heads) *
                                  config.head_width;  // q before and after rotation, k, v
  const int64_t projections = attention_width + config.model_width;
  ProfilePlan plan;
  plan.windows = num_windows;
  plan.ranks = ranks;
  plan.tokens = num_windows * length;
  plan.hidden_bytes = plan.tokens * config.model_width * kFloatBytes;
  const int64_t layer_bytes =
      config.model_width * (attention_width + 3 * config.mlp_width) * kFloatBytes;
  const int64_t embedding_bytes =
      (config.tied_embeddings ? 1 : 2) * config.vocab_size * config.model_width * kFloatBytes;
  const int64_t window_bytes =
      length * (projections + 2 * config.mlp_width + 2 * config.model_width) * kFloatBytes;
  // Counts keys and values of a layer's windows, until its bases are known, and latents.
  const int64_t narrow = std::ssize(options.tiers.tiers) - 1;
  const int64_t copies = config.keys.layout == KeyLayout::kLatent ? 3 : 2;
  const int64_t windows = (num_windows + ranks - 1) / ranks;  // of a rank
  const int64_t tokens = windows * length;
  const int64_t kept_bytes =
      narrow == 0 ? 0 : tokens * copies * config.num_kv_heads * config.head_width * kFloatBytes;
  plan.memory_bytes = tokens * config.model_width * kFloatBytes + kept_bytes +
                      std::max(layer_bytes + std::min(kWindowsInFlight, windows + 1) * window_bytes,
                               embedding_bytes);
  return plan;
}

double MeanLoss(const ProfileData& profile, const ScorerSpec* scorer, double kept) {
  const std::vector<float>& curve =
      scorer == nullptr ? profile.oracle_curve : profile.curves.at(*scorer);
  const int64_t point = std::lround(kept * kCurveIntervals);
  double lost = 0.0;
  double all = 0.0;
  for (size_t begin = 0; begin < curve.size(); begin += kCurveIntervals + 1) {
    lost += curve[begin + point];
    all += curve[begin];
  }
  return all > 0.0 ? lost / all : 0.0;
}

}  // namespace kvc::profile
