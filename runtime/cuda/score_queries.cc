#include "runtime/cuda/score_queries.h"

#include <algorithm>
#include <vector>

#include "core/cache/cache_spec.h"
#include "runtime/cuda/cuda_activations.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/device_room.h"
#include "scorers/expected_queries.h"
#include "scorers/rotation.h"

namespace kvc::runtime {
namespace {

void Append(const scorers::MeanRotation& rotation,
            std::vector<float>& cos,
            std::vector<float>& sin) {
  cos.insert(cos.end(), rotation.cos.begin(), rotation.cos.end());
  sin.insert(sin.end(), rotation.sin.begin(), rotation.sin.end());
}

}  // namespace

ScoreQueries::ScoreQueries(const ScoreRequest& request,
                           const CudaModel& model,
                           const SequenceCache& cache,
                           CudaDevice& device)
    : request_(request),
      model_(model),
      cache_(cache),
      ring_(cache.layer(request.layer).queries),
      device_(device) {}

cuda::QueryRows ScoreQueries::FromRing(int64_t first_head, int64_t count) const {
  cuda::QueryRows queries;
  if (count == 0) return queries;
  queries.data = DeviceMemory::Floats(ring_.buffer()) + ring_.offset(first_head);
  queries.stride = ring_.width();
  queries.head_stride = Int(ring_.width(first_head));
  queries.first = Int(ring_.RowOf(ring_.pushed() - count));
  queries.ring = Int(ring_.rows());
  queries.rows = Int(count);
  return queries;
}

cuda::QueryRows ScoreQueries::Window(int64_t first_head) const {
  const int64_t window = cache_.spec().window;
  return FromRing(first_head, window > 0 ? std::min(window, ring_.count()) : ring_.count());
}

cuda::QueryRows ScoreQueries::Prompt(int64_t first_head) const {
  if (request_.prompt == nullptr) return FromRing(first_head, ring_.count());
  const auto& x = dynamic_cast<const CudaActivations&>(*request_.prompt);
  const cuda::Rows all = x.prompt_queries();
  const int64_t stored = all.width / model_.plan().attentions[request_.layer].num_heads;
  cuda::QueryRows queries;
  queries.data = static_cast<const float*>(all.data) + first_head * stored;
  queries.stride = all.stride;
  queries.head_stride = Int(stored);
  queries.rows = Int(all.rows);
  return queries;
}

cuda::QueryTurn ScoreQueries::Turn(int64_t rows) {
  const CacheSpec& spec = cache_.spec();
  const int64_t queries = Prompt(0).rows;
  cuda::QueryTurn turn;
  turn.count = Int(scorers::ExpectedCount(queries, spec.sinks, spec.scorer.options.prompt));
  turn.skip = Int(scorers::SkippedSinks(queries, spec.sinks));
  // Scorers count positions in rows; where tokens are missing the rotation is taken back only as
  // far as that count has come.
  turn.first = Int(rows - queries);
  turn.cos = model_.query_rotation(request_.layer).cos;
  turn.sin = model_.query_rotation(request_.layer).sin;
  if (request_.rotation.frequencies.empty()) return turn;
  const Rotation& coming = Coming(rows, turn.count);
  turn.to_cos = coming.first.data();
  turn.to_sin = coming.second.data();
  return turn;
}

void ScoreQueries::AddExpected(int64_t first_head, cuda::ExpectedHead& head) {
  head.prompt = Prompt(first_head);
  const int64_t skip = scorers::SkippedSinks(head.prompt.rows, cache_.spec().sinks);
  head.first_position = Int(head.rows - head.prompt.rows + skip);
  head.prompt.first += Int(skip);
  head.prompt.rows -= Int(skip);
  head.cos = model_.query_rotation(request_.layer).cos;
  head.sin = model_.query_rotation(request_.layer).sin;
  if (request_.rotation.frequencies.empty()) return;
  const Rotation& mean = Mean(head.rows);
  head.mean_cos = mean.first.data();
  head.mean_sin = mean.second.data();
}

const ScoreQueries::Rotation& ScoreQueries::Coming(int64_t rows, int64_t count) {
  auto [place, fresh] = coming_.try_emplace({rows, count});
  if (!fresh) return place->second;
  std::vector<float> cos;
  std::vector<float> sin;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position =
        scorers::ExpectedPosition(i, rows, cache_.spec().scorer.options.future);
    Append(scorers::AverageRotation(request_.rotation.frequencies, position, 1), cos, sin);
  }
  place->second.first.Set(cos, device_);
  place->second.second.Set(sin, device_);
  return place->second;
}

const ScoreQueries::Rotation& ScoreQueries::Mean(int64_t rows) {
  auto [place, fresh] = means_.try_emplace(rows);
  if (!fresh) return place->second;
  std::vector<float> cos;
  std::vector<float> sin;
  Append(scorers::AverageRotation(request_.rotation.frequencies, rows,
                                  cache_.spec().scorer.options.future),
         cos, sin);
  place->second.first.Set(cos, device_);
  place->second.second.Set(sin, device_);
  return place->second;
}

}  // namespace kvc::runtime
