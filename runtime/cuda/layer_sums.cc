#include "runtime/cuda/layer_sums.h"

#include <algorithm>
#include <utility>

#include "core/cache/cache_spec.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/device_room.h"
#include "runtime/cuda/device_table.h"
#include "scorers/tier_loss.h"

namespace kvc::runtime {
namespace {

// Copies of rows of the heads that take a turn together, at most, unless one head needs more.
constexpr int64_t kMostCopiedBytes = int64_t{256} << 20;

int64_t KeyWidth(const AttentionStep& attention, const CacheGroup& group) {
  return attention.latent ? attention.head_width : group.key_width;
}

}  // namespace

WantedSums WantedOf(ScorerKind kind, const CacheSpec& spec) {
  const ScorerOptions& options = spec.scorer.options;
  WantedSums wanted;
  wanted.attention = kind == ScorerKind::kSnapKv;
  wanted.norms = kind == ScorerKind::kKnorm;
  wanted.keydiff = kind == ScorerKind::kKeyDiff;
  wanted.expected = kind == ScorerKind::kExpectedAttention;
  if (kind == ScorerKind::kOutputError) {
    (options.mean ? wanted.window_mean : wanted.window_maximum) = true;
    wanted.prompt = options.prompt > 0;
    wanted.keydiff = options.keydiff > 0.0;
  }
  if (spec.has_narrow_tiers()) {
    wanted.losses = true;
    wanted.largest_losses = !scorers::TierLossOptionsOf(spec.scorer).mean;
    (wanted.largest_losses ? wanted.window_maximum : wanted.window_mean) = true;
  }
  return wanted;
}

bool CanScore(const ScoreRequest& request, const CudaModel& model, const SequenceCache& cache) {
  const CacheSpec& spec = cache.spec();
  const ScorerKind kind = request.scorer->kind();
  const WantedSums wanted = WantedOf(kind, spec);
  const AttentionStep& attention = model.plan().attentions[request.layer];
  const bool by_queries = wanted.queries() || wanted.expected;
  // The kernels take the queries of the whole prompt; a window has left fewer rows.
  if (request.prompt != nullptr && attention.window > 0) return false;
  if (by_queries && attention.num_heads > cuda::kMostScoreGroup * attention.num_kv_heads) {
    return false;
  }
  const cuda::RotationTable rotation = model.query_rotation(request.layer);
  const int64_t frequencies = std::ssize(request.rotation.frequencies);
  // The kernels take rotations back whose tables begin with position 0 and change no length.
  const bool plain = request.rotation.factor == 1.0 && request.rotation.first_row == 0;
  for (const CacheGroup& group : spec.layers[request.layer]) {
    const int64_t width = KeyWidth(attention, group);
    const int64_t most = by_queries ? cuda::kMostScoreWidth : cuda::kMostKeyWidth;
    if (width > most || ((wanted.errors() || wanted.expected) && group.value_width > most))
      return false;
    if (!wanted.prompt && !wanted.expected) continue;
    if (!plain) return false;
    if (frequencies > 0 && 2 * frequencies != width) return false;
    if (rotation.cos != nullptr && 2 * rotation.half != width) return false;
  }
  return true;
}

LayerSums::LayerSums(const ScoreRequest& request,
                     const CudaModel& model,
                     const SequenceCache& cache,
                     DeviceBases& bases,
                     ThreadPool& pool,
                     CudaDevice& device)
    : request_(request),
      model_(model),
      attention_(model.plan().attentions[request.layer]),
      cache_(cache),
      spec_(cache.spec()),
      store_(cache.layer(request.layer)),
      wanted_(WantedOf(request.scorer->kind(), cache.spec())),
      bases_(bases),
      pool_(pool),
      device_(device),
      queries_(request, model, cache, device) {
  const auto& groups = spec_.layers[request_.layer];
  for (size_t n = 0; n < groups.size(); ++n) {
    for (size_t plane = 0; plane < groups[n].heads.size(); ++plane) {
      heads_.emplace_back().place = {static_cast<int64_t>(n), groups[n].heads[plane],
                                     static_cast<int64_t>(plane)};
    }
  }
}

void LayerSums::Find() {
  for (size_t begin = 0; begin < heads_.size();) {
    size_t end = begin;
    for (int64_t bytes = 0; end < heads_.size(); ++end) {
      bytes += CopiedBytes(heads_[end]);
      if (end > begin && bytes > kMostCopiedBytes) break;
    }
    RunHeads({heads_.data() + begin, end - begin});
    begin = end;
  }
}

const float* LayerSums::OnDevice(const SumArray& array) const {
  return array.turn < 0 ? nullptr : DeviceMemory::Floats(outputs_[array.turn]) + array.begin;
}

void LayerSums::Download() {
  for (const Buffer& output : outputs_) {
    std::vector<float>& host =
        host_.emplace_back(static_cast<size_t>(output.bytes() / kFloatBytes));
    cuda::CopyToHost(host.data(), DeviceMemory::Of(output), host.size() * sizeof(float),
                     device_.stream());
  }
}

std::span<const float> LayerSums::OnHost(const SumArray& array) const {
  if (array.turn < 0) return {};
  return std::span(host_[array.turn])
      .subspan(static_cast<size_t>(array.begin), static_cast<size_t>(array.length));
}

// Bytes of rows that are not read where they lie.
int64_t LayerSums::CopiedBytes(const HeadSums& head) const {
  const GroupCache& group = store_.groups[head.place.group];
  const bool copied = attention_.latent || store_.in_coordinates() || !group.tiers.empty();
  const int64_t narrow = wanted_.losses ? std::ssize(spec_.tiers) - 1 : 0;
  int64_t rows = group.recent.rows();
  for (const CacheBlock& tier : group.tiers) rows += tier.rows();
  const CacheGroup& shape = spec_.layers[request_.layer][head.place.group];
  const int64_t width = KeyWidth(attention_, shape) + shape.value_width;
  return ((copied ? 1 : 0) + 2 * narrow) * rows * width * kFloatBytes;
}

// Arrays of a head that are found on the device.
int64_t LayerSums::ArraysOfHead() const {
  const bool by_keys = wanted_.norms || wanted_.keydiff;
  const bool by_prompt = wanted_.prompt || wanted_.expected;
  return static_cast<int64_t>(wanted_.attention) + static_cast<int64_t>(wanted_.window_mean) +
         static_cast<int64_t>(wanted_.window_maximum) + static_cast<int64_t>(by_keys) +
         static_cast<int64_t>(by_prompt) + (wanted_.losses ? std::ssize(spec_.tiers) - 1 : 0);
}

// Room for all arrays of some heads.
void LayerSums::MakeOutputs(int64_t floats) {
  outputs_.emplace_back(floats * kFloatBytes, device_, nullptr);
  used_ = 0;
}
// The next array of a head, where kernels write it.
float* LayerSums::Output(const HeadSums& head, SumArray& array) {
  array = {std::ssize(outputs_) - 1, used_, head.rows};
  used_ += head.rows;
  return DeviceMemory::Floats(outputs_.back()) + array.begin;
}

void LayerSums::RunHeads(std::span<HeadSums> heads) {
  ScoreRows rows(request_.layer, model_, cache_, bases_, device_);
  std::vector<cuda::ScoreHead> table;
  std::vector<cuda::KeyHead> key_table;
  std::vector<cuda::ScoreTier> tiers;
  std::vector<cuda::ExpectedHead> expected;
  int64_t tokens = 0;
  for (HeadSums& head : heads) tokens += head.rows = rows.Rows(head.place);
  MakeOutputs(tokens * ArraysOfHead());
  for (HeadSums& head : heads) {
    cuda::ScoreHead& entry = table.emplace_back();
    entry.keys = rows.Keys(head.place);
    entry.rows = Int(head.rows);
    if (wanted_.norms || wanted_.keydiff) {
      key_table.push_back({entry.keys, entry.rows, Output(head, head.keys)});
    }
    if (wanted_.errors() || wanted_.expected) entry.values = rows.Values(head.place);
    if (wanted_.expected) AddExpected(head, entry, expected);
    if (!wanted_.queries()) continue;
    AddQueries(head, entry);
    if (wanted_.losses) AddTiers(head, Int(std::ssize(table) - 1), entry, rows, tiers);
  }
  rows.Launch();
  if (wanted_.queries()) RunQueries(std::move(table), tiers);
  if (!key_table.empty()) RunKeys(std::move(key_table));
  if (!expected.empty()) RunExpected(std::move(expected));
}

void LayerSums::AddQueries(HeadSums& head, cuda::ScoreHead& entry) {
  const int64_t group = attention_.num_heads / attention_.num_kv_heads;
  const int64_t first_head = head.place.head * group;
  entry.group = Int(group);
  entry.window = queries_.Window(first_head);
  head.heads = group;
  head.window = std::min<int64_t>(entry.window.rows, head.rows);
  if (wanted_.errors()) {
    const int64_t width = attention_.head_width;
    entry.grams = model_.output_grams(request_.layer, pool_) + first_head * width * width;
  }
  if (wanted_.attention) entry.attention = Output(head, head.attention);
  if (wanted_.window_mean) entry.error_sums = Output(head, head.errors);
  if (wanted_.window_maximum) entry.error_maxima = Output(head, head.maxima);
  if (!wanted_.prompt) return;
  entry.prompt = queries_.Prompt(first_head);
  entry.turn = queries_.Turn(head.rows);
  head.prompt_queries = entry.turn.count;
  entry.prompt_errors = Output(head, head.by_prompt);
}

void LayerSums::AddExpected(HeadSums& head,
                            const cuda::ScoreHead& rows,
                            std::vector<cuda::ExpectedHead>& table) {
  if (head.rows == 0) return;
  cuda::ExpectedHead& entry = table.emplace_back();
  entry.keys = rows.keys;
  entry.values = rows.values;
  entry.rows = rows.rows;
  entry.group = Int(attention_.num_heads / attention_.num_kv_heads);
  entry.sinks = head.rows > spec_.sinks ? Int(spec_.sinks) : 0;
  queries_.AddExpected(head.place.head * entry.group, entry);
  entry.scores = Output(head, head.by_prompt);
}

void LayerSums::AddTiers(HeadSums& head,
                         int32_t index,
                         const cuda::ScoreHead& entry,
                         ScoreRows& rows,
                         std::vector<cuda::ScoreTier>& tiers) {
  head.tiers.resize(spec_.tiers.size() - 1);
  for (int64_t t = 1; t < std::ssize(spec_.tiers); ++t) {
    cuda::ScoreTier& tier = tiers.emplace_back();
    tier.head = index;
    tier.keys = rows.TierKeys(head.place, t, entry.keys);
    tier.values = rows.TierValues(head.place, t, entry.values);
    tier.losses = Output(head, head.tiers[t - 1]);
  }
}

void LayerSums::RunQueries(std::vector<cuda::ScoreHead> heads,
                           const std::vector<cuda::ScoreTier>& tiers) {
  const cuda::ScorePlan plan = cuda::PlanScores(std::move(heads), wanted_.losses);
  cuda::CheckTiers(plan, tiers);
  const Buffer scratch = Room<float>(plan.scratch_floats, device_);
  float* floats = DeviceMemory::Floats(scratch);
  DeviceTable<cuda::ScoreHead> table;
  table.Set(plan.heads, device_);
  cuda::SumScores(plan, table.data(), floats, attention_.scale, device_.stream());
  if (tiers.empty()) return;
  DeviceTable<cuda::ScoreTier> tier_table;
  tier_table.Set(tiers, device_);
  cuda::TierLosses(plan, table.data(), floats, attention_.scale, tier_table.data(),
                   Int(std::ssize(tiers)), wanted_.largest_losses, device_.stream());
}

void LayerSums::RunKeys(std::vector<cuda::KeyHead> heads) {
  const cuda::KeyScorePlan plan = cuda::PlanKeyScores(std::move(heads));
  DeviceTable<cuda::KeyHead> table;
  table.Set(plan.heads, device_);
  if (wanted_.norms) return cuda::KeyNormScores(plan, table.data(), device_.stream());
  const Buffer scratch = Room<double>(plan.scratch_doubles, device_);
  cuda::KeyDiffScores(plan, table.data(), reinterpret_cast<double*>(DeviceMemory::Of(scratch)),
                      device_.stream());
}

void LayerSums::RunExpected(std::vector<cuda::ExpectedHead> heads) {
  const ScorerOptions& options = spec_.scorer.options;
  const cuda::ExpectedPlan plan = cuda::PlanExpected(std::move(heads));
  const Buffer scratch = Room<float>(plan.scratch_floats, device_);
  DeviceTable<cuda::ExpectedHead> table;
  table.Set(plan.heads, device_);
  cuda::ExpectedScores(plan, table.data(), DeviceMemory::Floats(scratch), attention_.scale,
                       static_cast<float>(options.epsilon), options.use_covariance,
                       device_.stream());
}

}  // namespace kvc::runtime
