#include "core/base/ordered_sum.h"

#include <algorithm>

#include "core/base/error.h"

namespace kvc {
namespace {

// Number of parts of `count` that belong to rank r.
int64_t PartsOfRank(int64_t count, int r, int size) { return (count - r + size - 1) / size; }

}  // namespace

template <class T>
OrderedSum<T>::OrderedSum(Ranks& ranks, int64_t count, int64_t length, int64_t buffer_bytes)
    : ranks_(ranks), count_(count), length_(length) {
  const int64_t part_bytes = std::max<int64_t>(length * sizeof(T), 1);
  per_round_ = std::max<int64_t>(buffer_bytes / part_bytes, 1);
  sum_.assign(SliceLength(ranks.rank()), T{0});
}

template <class T>
int64_t OrderedSum<T>::InRound(int r, int64_t from) const {
  const int64_t left = PartsOfRank(count_, r, ranks_.size()) - from;
  return std::clamp<int64_t>(left, 0, per_round_);
}

template <class T>
void OrderedSum<T>::Add(std::span<const T> part) {
  const int64_t mine = PartsOfRank(count_, ranks_.rank(), ranks_.size());
  KVC_CHECK(added_ < mine, kInternal, "ordered sum: expected {} parts, got more", mine);
  KVC_CHECK(std::ssize(part) == length_, kInternal, "ordered sum: expected a part of {}, got {}",
            length_, part.size());
  ++added_;
  if (ranks_.is_only()) {
    for (int64_t i = 0; i < length_; ++i) sum_[i] += part[i];
    return;
  }
  buffer_.insert(buffer_.end(), part.begin(), part.end());
  if (added_ - round_begin_ == per_round_) FinishRound();
}

template <class T>
void OrderedSum<T>::FinishRound() {
  const int me = ranks_.rank();
  const int size = ranks_.size();
  const int64_t mine = InRound(me, round_begin_);
  // [mine, slice] for rank r
  const auto slices_for = [&](int r) {
    std::vector<T> slices;
    slices.reserve(mine * SliceLength(r));
    for (int64_t i = 0; i < mine; ++i) {
      const auto begin = buffer_.begin() + i * length_ + SliceBegin(r);
      slices.insert(slices.end(), begin, begin + SliceLength(r));
    }
    return slices;
  };
  std::vector<std::vector<T>> received(size);  // by rank
  received[me] = slices_for(me);
  for (int d = 1; d < size; ++d) {
    const int to = (me + d) % size;
    const int from = (me - d + size) % size;
    const std::vector<T> sent = slices_for(to);
    received[from].resize(InRound(from, round_begin_) * SliceLength(me));
    ranks_.Exchange(to, std::as_bytes(std::span(sent)), from,
                    std::as_writable_bytes(std::span(received[from])));
  }
  const int64_t slice = SliceLength(me);
  for (int64_t i = 0; i < per_round_; ++i) {
    for (int r = 0; r < size; ++r) {
      if (i >= InRound(r, round_begin_)) continue;
      for (int64_t e = 0; e < slice; ++e) sum_[e] += received[r][i * slice + e];
    }
  }
  buffer_.clear();
  round_begin_ += per_round_;
}

template <class T>
std::vector<T> OrderedSum<T>::Finish() {
  const int me = ranks_.rank();
  const int size = ranks_.size();
  const int64_t mine = PartsOfRank(count_, me, size);
  KVC_CHECK(added_ == mine, kInternal, "ordered sum: expected {} parts, got {}", mine, added_);
  if (ranks_.is_only()) return std::move(sum_);
  // Rank 0 has as many parts as any.
  while (round_begin_ < PartsOfRank(count_, 0, size)) FinishRound();
  std::vector<T> all(length_);
  const auto slice_of = [&](int r) {
    return std::span(all).subspan(SliceBegin(r), SliceLength(r));
  };
  std::ranges::copy(sum_, slice_of(me).begin());
  for (int d = 1; d < size; ++d) {
    const int from = (me - d + size) % size;
    ranks_.Exchange((me + d) % size, std::as_bytes(std::span(sum_)), from,
                    std::as_writable_bytes(slice_of(from)));
  }
  return all;
}

template class OrderedSum<float>;
template class OrderedSum<double>;

}  // namespace kvc
