#include "pipeline/capacity/capacity.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/io/json.h"
#include "runtime/memory_need.h"
#include "runtime/sequence.h"
#include "scorers/scorer.h"

namespace kvc::capacity {
namespace {

constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));

budget::PlanRequest PlanRequestOf(const CapacityModel& model,
                                  const CapacityRequest& request,
                                  const Budget& budget) {
  budget::PlanRequest plan;
  plan.budget = budget;
  plan.policy = request.policy;
  if (budget.unit == Budget::Unit::kShare && budget.share >= 1.0) {
    plan.policy = {};
    plan.policy.method = Method::kFull;
    plan.policy.scorer = request.policy.scorer;
  }
  plan.sinks = request.sinks;
  plan.window = request.window;
  const int64_t wanted =
      request.reference_length > 0 ? request.reference_length : plan.reference_length;
  plan.reference_length = std::min(wanted, model.config.context_length);
  plan.profile = request.profile;
  plan.bases = budget::SharedBases(request.profile);
  return plan;
}

// Bytes of a prompt's activations: the hidden state of every token, the queries of a layer where
// its scorer asks for all of them, and, of a chunk, states, heads, gates and the last token's
// logits.
int64_t ActivationBytes(const ModelConfig& config, const CacheSpec& spec, int64_t length) {
  const int64_t chunk = std::min(length, runtime::SequenceOptions().chunk);
  const int64_t heads = 2 * (config.num_heads + config.num_kv_heads) * config.head_width;
  const int64_t chunk_width = 2 * config.model_width + heads + 2 * config.mlp_width;
  int64_t floats = length * config.model_width + chunk * chunk_width + config.vocab_size;
  if (!spec.full() && scorers::Scorer::Create(spec.scorer)->needs_prompt_queries()) {
    floats += length * config.num_heads * config.head_width;
  }
  return floats * kFloatBytes;
}

void AddPeak(const Capacity& capacity, CapacityLine& line) {
  const CacheSpec& spec = line.spec;
  runtime::PromptCache cache{&spec, capacity.context, 0, false};
  if (!spec.full()) {
    // A prompt is scored by the queries of its window.
    cache.least_queries = spec.query_ring > 0 ? std::max<int64_t>(spec.window, 1) : 0;
  }
  line.peak_cache_bytes = runtime::PeakCacheBytes(cache, capacity.context);
  line.peak_prefill_bytes =
      line.peak_cache_bytes + ActivationBytes(capacity.model.config, spec, capacity.context);
}

void AddLimits(const Capacity& capacity, CapacityLine& line) {
  const int64_t own = line.bytes.allocated;
  if (capacity.memory) {
    const int64_t passing = std::max<int64_t>(0, line.peak_prefill_bytes - own);
    const int64_t left = *capacity.memory - capacity.model.weight_bytes - passing;
    line.sequences = std::max<int64_t>(0, left) / own;
  }
  if (capacity.bandwidth) {
    const auto batch = static_cast<double>(capacity.batch);
    const double read =
        static_cast<double>(capacity.model.step_weight_bytes) + batch * static_cast<double>(own);
    line.tokens_per_second = batch * *capacity.bandwidth / read;
  }
}

CapacityLine MakeLine(const Capacity& capacity, std::string budget, CacheSpec spec) {
  CapacityLine line;
  line.budget = std::move(budget);
  line.spec = std::move(spec);
  line.bytes = PredictBytes(line.spec, capacity.context);
  AddPeak(capacity, line);
  AddLimits(capacity, line);
  return line;
}

Json OrNull(const auto& value) { return value ? Json(*value) : Json(); }

Json ToJson(const CapacityModel& model) {
  int64_t windows = 0;
  for (int64_t layer = 0; layer < model.config.num_layers; ++layer) {
    if (model.config.window(layer)) ++windows;
  }
  return {{"name", model.name},
          {"family", FamilyName(model.config.family)},
          {"key_layout", KeyLayoutName(model.config.keys.layout)},
          {"layers", model.config.num_layers},
          {"layers_with_window", windows},
          {"context_length", model.config.context_length},
          {"dtype", ShortName(model.weights_dtype)},
          {"cache_dtype", RowFormatName(model.geometry.key_format)},
          {"original_bytes_per_token", OriginalBytesPerToken(model.geometry)},
          {"weight_bytes", model.weight_bytes},
          {"weight_bytes_per_step", model.step_weight_bytes}};
}

Json ToJson(const CapacityLine& line, const Capacity& capacity) {
  Json json = {{"budget", line.budget}};
  if (!line.infeasible.empty()) {
    json["infeasible"] = line.infeasible;
    return json;
  }
  json["method"] = MethodName(line.spec.method);
  json["bytes_per_token"] = line.BytesPerToken(capacity.context);
  json["cache"] = {{"full_bytes", line.bytes.full},
                   {"logical_bytes", line.bytes.logical},
                   {"allocated_bytes", line.bytes.allocated},
                   {"peak_bytes", line.peak_cache_bytes}};
  json["batch_allocated_bytes"] = capacity.batch * line.bytes.allocated;
  json["peak_prefill_bytes"] = line.peak_prefill_bytes;
  json["sequences"] = OrNull(line.sequences);
  json["decode_tokens_per_second"] = OrNull(line.tokens_per_second);
  return json;
}

}  // namespace

Capacity PlanCapacity(CapacityModel model, const CapacityRequest& request) {
  const int64_t most = model.config.context_length;
  KVC_CHECK(request.context >= 0 && request.context <= most, kUsage,
            "--context: expected 1 to the model's {} tokens, got {}", most, request.context);
  KVC_CHECK(request.batch >= 1, kUsage, "--batch: expected 1 or more, got {}", request.batch);
  KVC_CHECK(request.reference_length <= most, kUsage,
            "--reference-length: expected 1 to the model's {} tokens, got {}", most,
            request.reference_length);
  Capacity capacity;
  capacity.model = std::move(model);
  capacity.context = request.context > 0 ? request.context : most;
  capacity.batch = request.batch;
  capacity.memory = request.memory;
  capacity.bandwidth = request.bandwidth;
  const CapacityModel& planned = capacity.model;
  if (planned.exported) {
    const std::string name = planned.exported_budget + " (exported)";
    capacity.lines.push_back(MakeLine(capacity, name, *planned.exported));
  }
  for (const std::string& text : request.budgets) {
    const Budget budget = ParseBudget(text, "--budget");
    try {
      const budget::PlanRequest plan = PlanRequestOf(planned, request, budget);
      CacheSpec spec = budget::MakeBudgetPlan(planned.geometry, plan).spec;
      capacity.lines.push_back(MakeLine(capacity, text, std::move(spec)));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInfeasible) throw;
      CapacityLine& line = capacity.lines.emplace_back();
      line.budget = text;
      line.infeasible = error.what();
    }
  }
  return capacity;
}

Json ToJson(const Capacity& capacity) {
  Json json;
  json["model"] = ToJson(capacity.model);
  json["context"] = capacity.context;
  json["batch"] = capacity.batch;
  json["memory_bytes"] = OrNull(capacity.memory);
  json["bandwidth_bytes_per_second"] = OrNull(capacity.bandwidth);
  json["budgets"] = Json::array();
  for (const CapacityLine& line : capacity.lines) {
    json["budgets"].push_back(ToJson(line, capacity));
  }
  return json;
}

}  // namespace kvc::capacity
