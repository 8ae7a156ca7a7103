// factorization.json of a result: every key in its place.

#include "factorize/factorization.h"

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "tests/support/expect_error.h"

namespace kvc::factorize {
namespace {

FactorizationResult ClosedFormResult() {
  FactorizationResult result;
  result.layout = {KeyLayout::kLatent, 2};
  result.objective = "output";
  result.key_bytes_share = 0.25;
  result.token_cost = {96, 4096, 512};
  ClosedForms& forms = result.closed_forms.emplace();
  forms.layout_choice = LayoutReport{
      "it loses least",
      {{{KeyLayout::kLatent, 2}, Objective::kOutput, 24, 0.25, 0.5, 12.0, {96, 4096, 512}}}};
  forms.sensitivity = {0.5, 2.0};
  forms.calibration_windows = 3;
  forms.layers = {{{8, 16}, {0.25, 0.75}, {{2.0, 1.0}, {4.0}}}};
  result.untuned = model::ModelDistance{0.5, 12.0, 10.0, 40};
  result.written = result.untuned;
  result.options.rank = ParseRank("25%", "--rank");
  result.calibration = {{"text.txt", "abc"}};
  return result;
}

constexpr const char* kLayoutChoice =
    R"({"candidates":[{"layout":"latent:2","objective":"output","rank":24,"key_bytes_share":0.25,)"
    R"("kld":0.5,"perplexity":12.0,"key_bytes":96,"rebuild_macs":4096,"score_macs":512}],)"
    R"("reason":"it loses least"})";

TEST(Factorization, ClosedFormsComeFirstAndInOrder) {
  FactorizationResult result = ClosedFormResult();
  result.untuned.reset();
  const Json json = ToJson(result);
  EXPECT_EQ(json["layout_choice"].dump(), kLayoutChoice);
  EXPECT_EQ(json["layers"].dump(),
            R"([{"rank":24,"logit_error":0.5,"group_ranks":[8,16],"head_logit_errors":[0.25,0.75],)"
            R"("spectra":[[2.0,1.0],[4.0]]}])");
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{
                      "layout_choice", "objective", "sensitivity", "calibration_windows", "layers",
                      "layout", "key_bytes_share", "token_cost", "kld_before_tuning", "perplexity",
                      "perplexity_source", "held_back_tokens", "options"}));
  EXPECT_EQ(json["options"].dump(),
            R"({"rank":0.25,"layout":"auto","objective":"auto","svd":"lapack","spread":false,)"
            R"("calib_tokens":16384,"window":512,"held_back":4,"tune":"none",)"
            R"("calibration":{"text.txt":"abc"}})");
}

TEST(Factorization, TuningsFollowTheDistanceBefore) {
  FactorizationResult result = ClosedFormResult();
  result.closed_forms->layout_choice.reset();
  result.closed_forms->sensitivity.reset();
  result.options.tune = result.options.tune_global = true;
  result.local_tuning = {{0.5, 0.25, 2, 0.03}};
  result.global_tuning = GlobalTuning{
      OutputLoss::kCe, 0.01, 8, 4, 2048, 3.0, 2.0, 0.5, std::nullopt, {{0, 0.0, 3.0, 3.0}}};
  result.control = ControlResult{OutputLoss::kKl, std::nullopt, 0.125, 9.0};
  const Json json = ToJson(result);
  EXPECT_EQ(json["tuning"].dump(),
            R"([{"error_before":0.5,"error_after":0.25,"kept_pass":2,"lr":0.03}])");
  EXPECT_EQ(json["global_tuning"].dump(),
            R"({"loss":"ce","lr":0.01,"steps":8,"kept_step":4,"tokens":2048,"loss_before":3.0,)"
            R"("loss_after":2.0,"backoff":0.5,"noise_tokens":null,)"
            R"("curve":[{"step":0,"lr":0.0,"train_loss":3.0,"check_loss":3.0}]})");
  EXPECT_EQ(json["control"].dump(), R"({"loss":"kl","steps":0,"kld":0.125,"perplexity":9.0})");
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"objective", "calibration_windows", "layers", "layout",
                                            "key_bytes_share", "token_cost", "kld_before_tuning",
                                            "perplexity_before_tuning", "tuning", "global_tuning",
                                            "control", "kld_after_tuning", "perplexity",
                                            "perplexity_source", "held_back_tokens", "options"}));
}

TEST(Factorization, WhatAThinModelBringsIsCopied) {
  FactorizationResult result;
  result.inherited = {{"layers", Json::array({1})}, {"objective", "unknown"}};
  const Json json = ToJson(result);
  EXPECT_EQ(json["layers"].dump(), "[1]");
  EXPECT_EQ(json["objective"], "unknown");
}

TEST(TuningResult, ReadsBack) {
  const LayerTuning layer{0.1, 0.05, 3, 0.03};
  const LayerTuning again = LayerTuningFromJson(ParseJson(ToJson(layer).dump(), "state"), "state");
  EXPECT_EQ(ToJson(again), ToJson(layer));
  const TuningCheck check{7, 0.001, 2.5, 2.25};
  EXPECT_EQ(ToJson(TuningCheckFromJson(ToJson(check), "state")), ToJson(check));
  EXPECT_KVC_ERROR((void)LayerTuningFromJson({{"error_before", 1.0}}, "state"), kBadInput,
                   "state: expected the key \"error_after\"");
}

}  // namespace
}  // namespace kvc::factorize
