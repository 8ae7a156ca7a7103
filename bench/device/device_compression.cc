#include "bench/device/device_compression.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "core/base/error.h"
#include "core/cache/cache_policy.h"

namespace kvc::bench {
namespace {

constexpr int64_t kAlignment = 256;  // of planes

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// `count` of the numbers below `limit`, in random order.
std::vector<int32_t> RandomRows(Rng& rng, int64_t limit, int64_t count) {
  std::vector<int32_t> rows(static_cast<size_t>(limit));
  std::iota(rows.begin(), rows.end(), 0);
  for (int64_t i = 0; i < count; ++i) std::swap(rows[i], rows[i + rng.NextBelow(limit - i)]);
  rows.resize(static_cast<size_t>(count));
  return rows;
}

}  // namespace

DeviceCompression::DeviceCompression(const AttentionShape& shape, LaunchTimer& timer)
    : shape_(shape), timer_(timer) {
  KVC_CHECK(!shape.rebuild, kUsage, "--shape: expected no latent to compress on a device, got one");
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (const int64_t rows : RowsOfHeads(shape, b)) {
      KVC_CHECK(rows <= shape.tokens, kUsage,
                "--shape: expected heads that keep at most the {} tokens, got {}; lower skew or "
                "budget",
                shape.tokens, rows);
    }
  }
  Rng rng(1);
  patterns_.emplace_back(shape.format, shape.key_width, rng, timer.stream());
  patterns_.emplace_back(shape.format, shape.width, rng, timer.stream());
  MakeWorkingBlocks();
  if (projects()) MakeBases(rng);
  ChooseRows(rng);
  MakeTable();
}

int64_t DeviceCompression::full_width(const Target& target) const {
  return patterns_[target.pattern].width();
}

void DeviceCompression::MakeWorkingBlocks() {
  const int64_t heads = shape_.batch * shape_.kv_heads;
  int64_t room = 0;
  for (const RowPattern& pattern : patterns_) {
    room += heads * Aligned(shape_.tokens * pattern.row_bytes());
    full_bytes_ += heads * shape_.tokens * pattern.row_bytes();
  }
  blocks_ = cuda::DeviceBuffer(static_cast<size_t>(room));
  auto* next = static_cast<std::byte*>(blocks_.data());
  for (int64_t plane = 0; plane < 2 * heads; ++plane) {
    const RowPattern& pattern = patterns_[plane % 2];
    working_.push_back(pattern.Fill(next, 37 * plane, shape_.tokens, timer_.stream()));
    next += Aligned(shape_.tokens * pattern.row_bytes());
  }
  cuda::Synchronize(timer_.stream());
}

void DeviceCompression::MakeBases(Rng& rng) {
  for (size_t i = 0; i < patterns_.size(); ++i) {
    const int64_t width = patterns_[i].width();
    bases_[i].resize(static_cast<size_t>(width * width));
    const double unit = 1.0 / std::sqrt(static_cast<double>(width));
    for (float& x : bases_[i]) x = static_cast<float>(unit * rng.NextNormal());
    device_bases_[i] = cuda::DeviceBuffer(bases_[i].size() * sizeof(float));
    cuda::CopyToDevice(device_bases_[i].data(), bases_[i].data(), device_bases_[i].bytes(),
                       timer_.stream());
  }
}

void DeviceCompression::ChooseRows(Rng& rng) {
  for (int64_t b = 0; b < shape_.batch; ++b) {
    const std::vector<int64_t> heads = RowsOfHeads(shape_, b);
    for (int64_t g = 0; g < shape_.kv_heads; ++g) {
      const std::vector<int32_t> rows = RandomRows(rng, shape_.tokens, heads[g]);
      const std::vector<int64_t> counts = RowsOfTiers(shape_, heads[g]);
      auto begin = rows.begin();
      for (size_t t = 0; t < shape_.tiers.size(); ++t) {
        const auto list = std::ssize(lists_);
        lists_.insert(lists_.end(), begin, begin + counts[t]);
        std::sort(lists_.begin() + list, lists_.end());  // tokens oldest first
        begin += counts[t];
        for (int64_t i = 0; i < 2; ++i) {
          const int64_t plane = 2 * (b * shape_.kv_heads + g) + i;
          targets_.push_back(
              {i, 37 * plane, list, counts[t], TierWidth(patterns_[i].width(), shape_.tiers[t])});
        }
      }
    }
  }
}

void DeviceCompression::MakeTable() {
  int64_t room = 0;
  for (const Target& target : targets_) {
    const int64_t bytes = target.rows * RowBytes(shape_.format, target.width);
    room += Aligned(bytes);
    kept_bytes_ += bytes;
    read_bytes_ += target.rows * patterns_[target.pattern].row_bytes();
  }
  kept_ = cuda::DeviceBuffer(static_cast<size_t>(room));
  device_lists_ = cuda::DeviceBuffer(lists_.size() * sizeof(int32_t));
  auto* next = static_cast<std::byte*>(kept_.data());
  for (const Target& target : targets_) {
    const int64_t stride = RowBytes(shape_.format, target.width);
    cuda::RowProjection projection;
    projection.move.from = working_[target.first / 37];
    projection.move.to = {next, cuda::RowCodeOf(shape_.format), static_cast<int32_t>(target.width),
                          stride};
    projection.move.from_rows = static_cast<const int32_t*>(device_lists_.data()) + target.list;
    projection.move.rows = static_cast<int32_t>(target.rows);
    next += Aligned(target.rows * stride);
    moves_.push_back(projection.move);
    if (!projects()) continue;
    const int64_t width = full_width(target);
    projection.basis.forward = static_cast<const float*>(device_bases_[target.pattern].data());
    projection.basis.back = projection.basis.forward;  // nothing is brought back
    projection.basis.stride = width;
    projection.basis.width = static_cast<int32_t>(width);
    projections_.push_back(projection);
  }
  most_rows_ = cuda::MostRows(moves_);
  if (projects()) size_ = cuda::SizeOf(projections_);
  table_ = cuda::DeviceBuffer(projects() ? projections_.size() * sizeof(cuda::RowProjection)
                                         : moves_.size() * sizeof(cuda::RowMove));
}

void DeviceCompression::Launch() const {
  const auto count = static_cast<int32_t>(targets_.size());
  if (projects()) {
    cuda::ProjectRows(static_cast<const cuda::RowProjection*>(table_.data()), count, size_,
                      timer_.stream());
  } else {
    cuda::MoveRows(static_cast<const cuda::RowMove*>(table_.data()), count, most_rows_,
                   timer_.stream());
  }
}

Times DeviceCompression::MeasureWithLists(int64_t repetitions) {
  const void* table = projects() ? static_cast<const void*>(projections_.data()) : moves_.data();
  return timer_.Measure(repetitions, [&] {
    cuda::CopyToDevice(device_lists_.data(), lists_.data(), device_lists_.bytes(), timer_.stream());
    cuda::CopyToDevice(table_.data(), table, table_.bytes(), timer_.stream());
    Launch();
  });
}

Times DeviceCompression::MeasureLaunch(int64_t repetitions) {
  (void)MeasureWithLists(1);
  return timer_.Measure(repetitions, [this] { Launch(); });
}

double DeviceCompression::Expected(const Target& target, int64_t row, int64_t column) const {
  const float* x = patterns_[target.pattern].Row(target.first + row);
  const std::vector<float>& basis = bases_[target.pattern];
  if (basis.empty()) return x[column];
  double sum = 0.0;
  const int64_t width = full_width(target);
  for (int64_t d = 0; d < width; ++d) {
    sum += static_cast<double>(x[d]) * static_cast<double>(basis[d * width + column]);
  }
  return sum;
}

double DeviceCompression::LargestError(int64_t rows) const {
  double error = 0.0;
  double largest = 0.0;
  for (size_t n = 0; n < targets_.size(); ++n) {
    const Target& target = targets_[n];
    const cuda::CachedRows& to = moves_[n].to;
    std::vector<std::byte> bytes(static_cast<size_t>(to.stride));
    std::vector<float> got(static_cast<size_t>(target.width));
    const int64_t count = std::min(rows, target.rows);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = count == 1 ? 0 : i * (target.rows - 1) / (count - 1);
      cuda::CopyToHost(bytes.data(), static_cast<const std::byte*>(to.data) + row * to.stride,
                       bytes.size(), timer_.stream());
      cuda::Synchronize(timer_.stream());
      DecodeRows(bytes.data(), shape_.format, to.stride, {got.data(), 1, target.width});
      for (int64_t c = 0; c < target.width; ++c) {
        const double expected = Expected(target, lists_[target.list + row], c);
        const double difference = std::abs(static_cast<double>(got[c]) - expected);
        if (std::isnan(difference)) return difference;
        error = std::max(error, difference);
        largest = std::max(largest, std::abs(expected));
      }
    }
  }
  return error / largest;
}

}  // namespace kvc::bench
