#include "bench/device/device_attention.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/cache/cache_policy.h"

namespace kvc::bench {
namespace {

constexpr int64_t kAlignment = 256;  // of planes

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <class T>
cuda::DeviceBuffer Upload(const std::vector<T>& values, cuda::StreamHandle stream) {
  const size_t bytes = values.size() * sizeof(T);
  cuda::DeviceBuffer buffer(std::max<size_t>(bytes, 1));
  cuda::CopyToDevice(buffer.data(), values.data(), bytes, stream);
  cuda::Synchronize(stream);
  return buffer;
}

}  // namespace

DeviceAttention::DeviceAttention(const AttentionShape& shape, LaunchTimer& timer)
    : shape_(shape), timer_(timer) {
  KVC_CHECK(!shape.rebuild || shape.skew == 1.0, kUsage,
            "--shape: expected no skew of heads that share a latent, got {}", shape.skew);
  Rng rng(1);
  for (const double share : shape.tiers) {
    tiers_.push_back({{shape.format, TierWidth(shape.key_width, share), rng, timer.stream()},
                      {shape.format, TierWidth(shape.width, share), rng, timer.stream()}});
  }
  queries_.resize(static_cast<size_t>(shape.batch * shape.query_heads * QueryWidth()));
  for (float& x : queries_) x = static_cast<float>(rng.NextNormal());
  device_queries_ = Upload(queries_, timer.stream());
  outputs_ = cuda::DeviceBuffer(static_cast<size_t>(shape.batch * shape.query_heads * shape.width) *
                                sizeof(float));
  FillRows();
  if (shape.rebuild) MakeLatents(rng);
  MakePlan();
}

void DeviceAttention::MakeLatents(Rng& rng) {
  const int64_t half = shape_.width / 2;
  const float size = 1.0F / std::sqrt(static_cast<float>(shape_.key_width));
  for (int64_t i = 0; i < shape_.kv_heads * shape_.width * shape_.key_width; ++i) {
    latents_.matrices.push_back(size * static_cast<float>(rng.NextNormal()));
  }
  for (int64_t i = 0; i < shape_.tokens * half; ++i) {
    const double frequency =
        std::pow(1e4, -static_cast<double>(i % half) / static_cast<double>(half));
    const double angle = static_cast<double>(i / half) * frequency;
    latents_.cos.push_back(static_cast<float>(std::cos(angle)));
    latents_.sin.push_back(static_cast<float>(std::sin(angle)));
  }
  latents_.device_cos = Upload(latents_.cos, timer_.stream());
  latents_.device_sin = Upload(latents_.sin, timer_.stream());
  for (int64_t g = 0; g < shape_.kv_heads; ++g) {
    cuda::LatentFactors factors;
    factors.matrix = latents_.matrices.data() + g * shape_.width * shape_.key_width;
    factors.matrix_stride = factors.rank = shape_.key_width;
    factors.width = shape_.width;
    factors.half = half;
    latents_.packed.push_back(Upload(cuda::PackLatentKeys(factors), timer_.stream()));
  }
}

cuda::LatentKeys DeviceAttention::LatentsOf(int64_t kv_head) const {
  cuda::LatentKeys keys;
  keys.packed = static_cast<const uint32_t*>(latents_.packed[kv_head].data());
  keys.rotation = {static_cast<const float*>(latents_.device_cos.data()),
                   static_cast<const float*>(latents_.device_sin.data()), shape_.width / 2};
  keys.rank = static_cast<int32_t>(shape_.key_width);
  keys.width = static_cast<int32_t>(shape_.width);
  keys.places = static_cast<int32_t>(cuda::LatentPlaces(shape_.width, shape_.width / 2));
  return keys;
}

void DeviceAttention::FillRows() {
  const int64_t tiers = std::ssize(tiers_);
  // Planes of keys that another head's are not.
  const auto owns_keys = [&](int64_t plane) {
    return !shape_.rebuild || plane / tiers % shape_.kv_heads == 0;
  };
  int64_t room = 0;
  for (int64_t b = 0; b < shape_.batch; ++b) {
    for (const int64_t rows : RowsOfHeads(shape_, b)) {
      const std::vector<int64_t> counts = RowsOfTiers(shape_, rows);
      for (int64_t t = 0; t < tiers; ++t) {
        const int64_t plane = std::ssize(planes_);
        const int64_t first = 37 * plane;
        const bool own = owns_keys(plane);
        planes_.push_back({own ? first : planes_[plane - tiers].first_key, first, counts[t]});
        const int64_t keys = own ? counts[t] * tiers_[t].keys.row_bytes() : 0;
        const int64_t values = counts[t] * tiers_[t].values.row_bytes();
        bytes_ += keys + values;
        room += Aligned(keys) + Aligned(values);
      }
    }
  }
  rows_ = cuda::DeviceBuffer(static_cast<size_t>(room));
  auto* next = static_cast<std::byte*>(rows_.data());
  for (int64_t p = 0; p < std::ssize(planes_); ++p) {
    const Tier& tier = tiers_[p % tiers];
    const auto [first_key, first, rows] = planes_[p];
    cuda::DecodeSegment segment;
    segment.rows = static_cast<int32_t>(rows);
    if (owns_keys(p)) {
      segment.keys = tier.keys.Fill(next, first_key, rows, timer_.stream());
      next += Aligned(rows * tier.keys.row_bytes());
    } else {
      segment.keys = segments_[p - tiers].keys;
    }
    segment.values = tier.values.Fill(next, first, rows, timer_.stream());
    next += Aligned(rows * tier.values.row_bytes());
    segments_.push_back(segment);
  }
  cuda::Synchronize(timer_.stream());
}

void DeviceAttention::MakePlan() {
  const int64_t group = shape_.query_heads / shape_.kv_heads;
  const auto tiers = static_cast<int32_t>(tiers_.size());
  std::vector<cuda::DecodeHead> heads;
  std::vector<int32_t> segment_first = {0};
  for (int64_t h = 0; h < shape_.batch * shape_.kv_heads; ++h) {
    cuda::DecodeHead head;
    head.queries = static_cast<const float*>(device_queries_.data()) + h * group * QueryWidth();
    head.outputs = static_cast<float*>(outputs_.data()) + h * group * shape_.width;
    head.query_width = static_cast<int32_t>(QueryWidth());
    if (shape_.rebuild) head.latents = LatentsOf(h % shape_.kv_heads);
    head.query_stride = head.query_width;
    head.output_width = static_cast<int32_t>(shape_.width);
    head.output_stride = head.output_width;
    head.group = static_cast<int32_t>(group);
    heads.push_back(head);
    segment_first.push_back(segment_first.back() + tiers);
  }
  // As runtime/cuda/cuda_device.h has it.
  const auto blocks = static_cast<int32_t>(2 * timer_.device().multiprocessors);
  plan_ = cuda::PlanDecode(segments_, segment_first, heads, blocks);
  const auto floats = static_cast<size_t>(plan_.partials) *
                      static_cast<size_t>(cuda::DecodePartialFloats(plan_.launch.width));
  device_segments_ = Upload(segments_, timer_.stream());
  heads_ = Upload(plan_.heads, timer_.stream());
  pieces_ = Upload(plan_.pieces, timer_.stream());
  first_ = Upload(plan_.first, timer_.stream());
  partials_ = cuda::DeviceBuffer(std::max<size_t>(floats, 1) * sizeof(float));
  arrived_ = Upload(std::vector<int32_t>(plan_.heads.size(), 0), timer_.stream());
}

std::string_view DeviceAttention::reader() const {
  switch (plan_.launch.reader) {
    case cuda::DecodeReader::kF32:
      return "f32";
    case cuda::DecodeReader::kF16:
      return "f16";
    case cuda::DecodeReader::kBF16:
      return "bf16";
    case cuda::DecodeReader::kMixed:
      return "mixed";
    case cuda::DecodeReader::kLatents:
      return "latents";
    case cuda::DecodeReader::kAny:
      break;
  }
  return "any";
}

void DeviceAttention::Launch() const {
  cuda::DecodeArguments in;
  in.segments = static_cast<const cuda::DecodeSegment*>(device_segments_.data());
  in.heads = static_cast<const cuda::DecodeHead*>(heads_.data());
  in.pieces = static_cast<const cuda::DecodePiece*>(pieces_.data());
  in.first = static_cast<const int32_t*>(first_.data());
  in.partials = static_cast<float*>(partials_.data());
  in.arrived = static_cast<int32_t*>(arrived_.data());
  in.scale = 1.0F / std::sqrt(static_cast<float>(shape_.width));
  cuda::DecodeAttention(in, plan_.launch, timer_.stream());
}

Times DeviceAttention::Measure(int64_t repetitions) {
  return timer_.Measure(repetitions, [this] { Launch(); });
}

std::vector<double> DeviceAttention::Key(int64_t head,
                                         const float* row,
                                         int64_t width,
                                         int64_t position) const {
  if (!shape_.rebuild) return {row, row + width};
  const int64_t half = shape_.width / 2;
  const float* matrix =
      latents_.matrices.data() + head % shape_.kv_heads * shape_.width * shape_.key_width;
  std::vector<double> key(static_cast<size_t>(shape_.width), 0.0);
  for (int64_t d = 0; d < shape_.width; ++d) {
    for (int64_t r = 0; r < width; ++r) {
      key[d] += static_cast<double>(matrix[d * shape_.key_width + r]) * static_cast<double>(row[r]);
    }
  }
  for (int64_t j = 0; j < half; ++j) {
    const double cos = static_cast<double>(latents_.cos[position * half + j]);
    const double sin = static_cast<double>(latents_.sin[position * half + j]);
    const double a = key[j];
    const double b = key[j + half];
    key[j] = a * cos - b * sin;
    key[j + half] = b * cos + a * sin;
  }
  return key;
}

std::vector<double> DeviceAttention::Reference(int64_t head, int64_t query) const {
  const double scale = 1.0 / std::sqrt(static_cast<double>(shape_.width));
  const int64_t group = shape_.query_heads / shape_.kv_heads;
  const float* q = queries_.data() + (head * group + query) * QueryWidth();
  const auto tiers = std::ssize(tiers_);
  std::vector<double> output(static_cast<size_t>(shape_.width), 0.0);
  double sum = 0.0;
  for (int64_t t = 0; t < tiers; ++t) {
    const auto& [first_key, first, rows] = planes_[head * tiers + t];
    const auto& [keys, values] = tiers_[t];
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<double> key = Key(head, keys.Row(first_key + r), keys.width(), r);
      double score = 0.0;
      for (size_t d = 0; d < key.size(); ++d) score += static_cast<double>(q[d]) * key[d];
      // Scores are normal numbers: no maximum needs to be subtracted in double precision.
      const double weight = std::exp(scale * score);
      sum += weight;
      for (int64_t d = 0; d < values.width(); ++d) {
        output[d] += weight * static_cast<double>(values.Row(first + r)[d]);
      }
    }
  }
  for (double& x : output) x /= sum;
  return output;
}

double DeviceAttention::LargestError(int64_t heads) const {
  std::vector<float> outputs(outputs_.bytes() / sizeof(float));
  cuda::CopyToHost(outputs.data(), outputs_.data(), outputs_.bytes(), timer_.stream());
  cuda::Synchronize(timer_.stream());
  const int64_t all = shape_.batch * shape_.query_heads;
  const int64_t group = shape_.query_heads / shape_.kv_heads;
  const int64_t count = std::min(heads, all);
  double largest = 0.0;
  double error = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t h = count == 1 ? 0 : i * (all - 1) / (count - 1);
    const std::vector<double> expected = Reference(h / group, h % group);
    for (int64_t d = 0; d < shape_.width; ++d) {
      const double difference = std::abs(outputs[h * shape_.width + d] - expected[d]);
      if (std::isnan(difference)) return difference;
      error = std::max(error, difference);
      largest = std::max(largest, std::abs(expected[d]));
    }
  }
  return error / largest;
}

}  // namespace kvc::bench
