#include "runtime/cuda/decode_tables.h"

#include <cstddef>
#include <utility>

#include "core/base/error.h"
#include "runtime/cuda/device_memory.h"

namespace kvc::runtime {
namespace {

const RowsStay& StayOf(LayerCache& layer) {
  if (layer.tables == nullptr) layer.tables = std::make_unique<RowsStay>();
  const auto* stay = dynamic_cast<const RowsStay*>(layer.tables.get());
  KVC_CHECK(stay != nullptr, kInternal, "cuda: expected its own tables of a layer, got another's");
  return *stay;
}

cuda::Rows RowOf(cuda::Rows rows, int64_t row) {
  rows.data = static_cast<float*>(rows.data) + row * rows.stride;
  rows.rows = 1;
  return rows;
}

}  // namespace

// Collects the tables of all sequences on the host, then brings them to the device.
class DecodeTables::Maker {
 public:
  Maker(int64_t layer,
        const CudaActivations& x,
        const DecodeScratch& scratch,
        DeviceBases& bases,
        DecodeTables& tables)
      : layer_(layer),
        x_(x),
        step_(x.plan().attentions[layer]),
        device_(x.device()),
        latents_(x.model().latents(layer)),
        scratch_(scratch),
        bases_(bases),
        tables_(tables),
        group_(step_.num_heads / step_.num_kv_heads),
        q_(x.AttentionIn(layer, 0)),
        out_(x.AttentionOut(layer)) {}

  void Add(int64_t b, const SequenceCache& cache, const RowCounters* counters) {
    rows_ = LayerRows(cache, layer_, bases_, device_);
    const LayerCache& layer = cache.layer(layer_);
    AddStores(b, cache, layer, counters);
    for (int64_t g = 0; g < step_.num_kv_heads; ++g) AddHead(b, g, cache, layer, counters);
  }

  void Upload() {
    SetTable(moves_, cuda::MostRows(moves_), tables_.moves_);
    SetTable(into_, cuda::SizeOf(into_), tables_.into_coordinates_);
    SetTable(out_of_, cuda::SizeOf(out_of_), tables_.out_of_coordinates_);
    tables_.positions_.Set(positions_, device_);
    for (size_t i = 0; i < first_position_.size(); ++i) {
      segments_[i].positions = tables_.positions_.data() + first_position_[i];
    }
    const cuda::DecodePlan plan =
        cuda::PlanDecode(segments_, segment_first_, heads_, scratch_.blocks);
    tables_.segments_.Set(segments_, device_);
    tables_.heads_.Set(plan.heads, device_);
    tables_.pieces_.Set(plan.pieces, device_);
    tables_.first_.Set(plan.first, device_);
    tables_.arguments_ = {tables_.segments_.data(),
                          tables_.heads_.data(),
                          tables_.pieces_.data(),
                          tables_.first_.data(),
                          scratch_.partials,
                          scratch_.arrived,
                          step_.scale};
    tables_.launch_ = plan.launch;
  }

 private:
  template <class T, class Size>
  void SetTable(const std::vector<T>& entries, const Size& size, Table<T, Size>& table) {
    table.entries.Set(entries, device_);
    table.count = static_cast<int32_t>(entries.size());
    table.size = size;
  }

  // One row, from row b of the batch to the first free row of a recent block.
  void AddStore(const cuda::CachedRows& from,
                const cuda::CachedRows& to,
                int64_t b,
                const RowCounters* counters,
                const cuda::RowBasis& basis) {
    cuda::RowMove move = {from, to, nullptr, &counters->held, static_cast<int32_t>(b), 0, 1, 0};
    CountFaults(device_, move);
    if (basis.width == 0) {
      moves_.push_back(move);
    } else {
      into_.push_back({move, basis, cuda::BasisWay::kToCoordinates});
    }
  }

  void AddStores(int64_t b,
                 const SequenceCache& cache,
                 const LayerCache& layer,
                 const RowCounters* counters) {
    const bool in_coordinates = layer.in_coordinates();
    ForStoredPlanes(step_, x_, layer, rows_, [&](const StoredPlane& plane) {
      cuda::RowBasis basis;
      if (in_coordinates) {
        basis = plane.keys ? bases_.Keys(cache, *layer.coordinates, plane.head, device_)
                           : bases_.Values(cache, *layer.coordinates, plane.head, device_);
      }
      AddStore(plane.from, plane.to, b, counters, basis);
    });
    if (cache.spec().full()) return;
    const size_t first = moves_.size();
    AppendQueryMoves(RowOf(q_, b), q_.width / step_.num_heads, layer.queries, moves_);
    for (size_t i = first; i < moves_.size(); ++i) {
      moves_[i].to_first = 0;
      moves_[i].held = &counters->pushed;
    }
  }

  // The positions of a block's rows; of the recent block's those too that are still to come.
  void AddPositions(const CacheBlock& block, int64_t rows) {
    const std::span<const int32_t> known = block.positions();
    positions_.insert(positions_.end(), known.begin(), known.end());
    for (int64_t row = std::ssize(known); row < rows; ++row) {
      positions_.push_back(positions_.back() + 1);
    }
  }

  // `rows` of a block: as many as it has, or may come to have where `live` counts them.
  void AddSegment(int64_t plane, const CacheBlock& block, int64_t rows, const int32_t* live) {
    if (rows == 0) return;
    if (step_.latent) {
      first_position_.push_back(static_cast<int64_t>(positions_.size()));
      AddPositions(block, rows);
    }
    segments_.push_back({cuda::CodedColumns(rows_.Keys(block)),
                         cuda::CodedColumns(rows_.Values(block, plane)), static_cast<int32_t>(rows),
                         live, nullptr});
  }

  void AddSegments(int64_t g, const LayerCache& layer, const RowCounters* counters) {
    const int64_t planes = step_.num_kv_heads / std::ssize(layer.groups);
    const GroupCache& group = layer.groups[g / planes];
    for (const CacheBlock& tier : group.tiers) AddSegment(g % planes, tier, tier.rows(), nullptr);
    AddSegment(g % planes, group.recent, group.recent.capacity(), &counters->live);
    segment_first_.push_back(static_cast<int32_t>(segments_.size()));
  }

  void AddHead(int64_t b,
               int64_t g,
               const SequenceCache& cache,
               const LayerCache& layer,
               const RowCounters* counters) {
    const int64_t stride = q_.width / step_.num_heads;
    const int64_t value_width = out_.width / step_.num_heads;
    const int64_t planes = step_.num_kv_heads / std::ssize(layer.groups);
    const int64_t key_width = step_.latent ? stride : step_.key_ranks[g / planes];
    const cuda::Rows q = RowOf(q_, b);
    const cuda::Rows out = RowOf(out_, b);
    cuda::DecodeHead head;
    head.queries = static_cast<const float*>(q.data) + g * group_ * stride;
    head.query_stride = static_cast<int32_t>(stride);
    head.outputs = static_cast<float*>(out.data) + g * group_ * value_width;
    head.output_stride = static_cast<int32_t>(value_width);
    head.group = static_cast<int32_t>(group_);
    head.query_width = static_cast<int32_t>(key_width);
    head.output_width = static_cast<int32_t>(value_width);
    if (step_.latent) head.latents = latents_[g];
    if (layer.in_coordinates()) TurnHead(b, g, cache, *layer.coordinates, head);
    heads_.push_back(head);
    AddSegments(g, layer, counters);
  }

  // Queries go into coordinates on the way to the head, and outputs back.
  void TurnHead(int64_t b,
                int64_t g,
                const SequenceCache& cache,
                const LayerCoordinates& coordinates,
                cuda::DecodeHead& head) {
    const int64_t row = (b * step_.num_heads + g * group_) * step_.head_width;
    const cuda::RowBasis keys = bases_.Keys(cache, coordinates, g, device_);
    if (keys.width > 0) {
      const cuda::CachedRows turned =
          FloatRows(scratch_.queries + row, head.query_width, step_.head_width);
      into_.push_back({GroupMove(FloatRows(const_cast<float*>(head.queries), head.query_width,
                                           head.query_stride),
                                 turned),
                       keys, cuda::BasisWay::kToQueries});
      head.queries = static_cast<const float*>(turned.data);
      head.query_stride = static_cast<int32_t>(step_.head_width);
    }
    const cuda::CachedRows coordinates_out =
        FloatRows(scratch_.outputs + row, head.output_width, step_.head_width);
    out_of_.push_back(
        {GroupMove(coordinates_out, FloatRows(head.outputs, head.output_width, head.output_stride)),
         bases_.Values(cache, coordinates, g, device_), cuda::BasisWay::kFromCoordinates});
    head.outputs = static_cast<float*>(coordinates_out.data);
    head.output_stride = static_cast<int32_t>(step_.head_width);
  }

  [[nodiscard]] static cuda::CachedRows FloatRows(float* data, int64_t width, int64_t stride) {
    return {data, cuda::RowCode::kF32, static_cast<int32_t>(width),
            stride * static_cast<int64_t>(sizeof(float))};
  }
  [[nodiscard]] cuda::RowMove GroupMove(const cuda::CachedRows& from,
                                        const cuda::CachedRows& to) const {
    return {from, to, nullptr, nullptr, 0, 0, static_cast<int32_t>(group_), 0};
  }

  int64_t layer_;
  const CudaActivations& x_;
  const AttentionStep& step_;
  CudaDevice& device_;
  std::span<const cuda::LatentKeys> latents_;  // [G]; of no size where keys are as stored
  const DecodeScratch& scratch_;
  DeviceBases& bases_;
  DecodeTables& tables_;
  int64_t group_;  // query heads of a kv head
  cuda::Rows q_, out_;
  LayerRows rows_;  // of the cache that Add looks at
  std::vector<cuda::RowMove> moves_;
  std::vector<cuda::RowProjection> into_, out_of_;
  std::vector<int64_t> first_position_;  // [segments] of latents, in positions_
  std::vector<int32_t> positions_;
  std::vector<cuda::DecodeSegment> segments_;
  std::vector<int32_t> segment_first_ = {0};
  std::vector<cuda::DecodeHead> heads_;
};

bool DecodeTables::Hold(int64_t layer, std::span<SequenceCache* const> caches) const {
  if (stay_.size() != caches.size()) return false;
  for (size_t b = 0; b < caches.size(); ++b) {
    LayerCache& own = caches[b]->layer(layer);
    if (own.tables == nullptr || StayOf(own).token != stay_[b].lock()) return false;
  }
  return true;
}

void DecodeTables::Make(int64_t layer,
                        std::span<SequenceCache* const> caches,
                        const CudaActivations& x,
                        const RowCounters* counters,
                        const DecodeScratch& scratch,
                        DeviceBases& bases) {
  Maker maker(layer, x, scratch, bases, *this);
  stay_.clear();  // tables that are not complete hold nowhere
  for (size_t b = 0; b < caches.size(); ++b) {
    maker.Add(static_cast<int64_t>(b), *caches[b], counters + b);
  }
  maker.Upload();
  for (SequenceCache* cache : caches) stay_.push_back(StayOf(cache->layer(layer)).token);
}

void DecodeTables::Launch(cuda::StreamHandle stream) const {
  if (moves_.count > 0) {
    cuda::MoveRows(moves_.entries.data(), moves_.count, moves_.size, stream);
  }
  if (into_coordinates_.count > 0) {
    cuda::ProjectRows(into_coordinates_.entries.data(), into_coordinates_.count,
                      into_coordinates_.size, stream);
  }
  cuda::DecodeAttention(arguments_, launch_, stream);
  if (out_of_coordinates_.count > 0) {
    cuda::ProjectRows(out_of_coordinates_.entries.data(), out_of_coordinates_.count,
                      out_of_coordinates_.size, stream);
  }
}

}  // namespace kvc::runtime
