#include "export/budget/budget_checks.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/cache/cache_bases.h"
#include "export/budget/budget_curves.h"
#include "scorers/tier_loss.h"

namespace kvc::budget {
namespace {

// One threshold for the model takes a row from one group for another.
void CheckModelThreshold(const CacheGeometry& geometry, const PlanRequest& request) {
  if (request.policy.method != Method::kAdaModel) return;
  KVC_CHECK(request.policy.scorer.kind == ScorerKind::kOutputError, kUsage,
            "--method ada-model: expected scores that layers can be compared by, got {}; use "
            "--scorer output-error",
            ToString(request.policy.scorer));
  for (int64_t l = 0; l < geometry.num_layers(); ++l) {
    KVC_CHECK(geometry.AttentionWindow(l) == geometry.AttentionWindow(0), kUnsupported,
              "--method ada-model: expected layers that see the same tokens, got windows of {} and "
              "{} tokens; use --method lukv",
              geometry.AttentionWindow(0), geometry.AttentionWindow(l));
  }
  const int64_t bytes = BytesPerToken(geometry, geometry.layers[0][0]);
  for (const auto& groups : geometry.layers) {
    for (const CacheGroup& group : groups) {
      KVC_CHECK(BytesPerToken(geometry, group) == bytes, kUnsupported,
                "--method ada-model: expected rows of one size in every group, got {} and {} "
                "bytes; use --method lukv",
                bytes, BytesPerToken(geometry, group));
    }
  }
}

// The profile has what lukv or lukv-mixed needs.
void CheckCurves(const PlanRequest& request) {
  const ProfileData& profile = *request.profile;
  const bool mixed = request.policy.method == Method::kLuKvMixed;
  const CurveLoss loss = LossOf(request);
  KVC_CHECK(CurvesFor(profile, request.policy.method, loss).contains(request.policy.scorer), kUsage,
            "--profile: expected curves of {} for the scorer {}, got none; {}",
            mixed ? "tiers" : CurveLossName(loss), ToString(request.policy.scorer),
            mixed && request.policy.scorer.options.keydiff > 0.0
                ? "a share of keydiff makes no loss that tiers can take a part of, use lukv"
                : "run kvc-profile with --scorer " + ToString(request.policy.scorer));
}

}  // namespace

void CheckMethod(const CacheGeometry& geometry, const PlanRequest& request) {
  CheckModelThreshold(geometry, request);
  const bool shared = std::any_of(geometry.layers.begin(), geometry.layers.end(),
                                  [](const auto& l) { return l.size() == 1; });
  KVC_CHECK(request.policy.method != Method::kAda || !shared, kUnsupported,
            "--method ada: expected several cache groups in a layer to move rows between, got one; "
            "use --method uniform");
  const bool by_curves =
      request.policy.method == Method::kLuKv || request.policy.method == Method::kLuKvMixed;
  if (request.policy.method != Method::kHeadKv && !by_curves) return;
  KVC_CHECK(
      request.profile != nullptr, kUsage,
      "--method {}: expected a profile, got none; make one with kvc-profile and give --profile",
      MethodName(request.policy.method));
  const ProfileData& profile = *request.profile;
  KVC_CHECK(
      profile.num_layers == geometry.num_layers() && profile.num_kv_heads == geometry.num_kv_heads,
      kBadShape, "--profile: expected {} layers of {} kv heads, got {} of {}; profile this model",
      geometry.num_layers(), geometry.num_kv_heads, profile.num_layers, profile.num_kv_heads);
  if (by_curves) CheckCurves(request);
}

// Tiers narrower than a row, and what they need.
void CheckMixed(const CacheSpec& spec, const PlanRequest& request) {
  KVC_CHECK(request.policy.method != Method::kStreaming, kUsage,
            "--tiers: expected 0,1 with --method streaming, which keeps the newest tokens whole, "
            "got narrower ones");
  KVC_CHECK(scorers::ScoresAreLosses(request.policy.scorer.kind), kUnsupported,
            "--tiers: expected a --scorer whose scores are losses that tiers can take a share of "
            "(snapkv, expected-attention, output-error), got {}",
            ToString(request.policy.scorer));
  CheckTiers(spec);
  if (spec.basis == TierBasis::kPrompt) return;
  KVC_CHECK(spec.bases != nullptr, kUsage,
            "--tiers: expected a profile with bases, got {}; make it with kvc-profile, or use "
            "--basis prompt",
            request.profile == nullptr ? "no --profile" : "one of an older version");
  CheckBasesFit(*spec.bases, spec);
}

}  // namespace kvc::budget
