#pragma once
// The sum of equally long parts that the ranks have computed, in the order of the parts:
//
//   ((p0 + p1) + p2) + ...,   part p from rank p mod size (core/base/ranks.h)
//
// whose bits do not depend on the number of ranks. No rank holds more than a few parts: each adds
// up a slice of all parts, and the parts travel in rounds of one from every rank. Every part
// crosses the network once, and the sum once more for each rank.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/ranks.h"

namespace kvc {

// T: float or double. `ranks` must outlive it.
template <class T>
class OrderedSum {
 public:
  // `count` parts of `length` numbers. As many parts of a rank travel together as `buffer_bytes`
  // hold, at least one; the memory is twice that, and the sum. One rank has the sum alone.
  OrderedSum(Ranks& ranks, int64_t count, int64_t length, int64_t buffer_bytes = int64_t{8} << 20);

  // Adds this rank's next part of PartsOf(count), [length]. Collective in so far as every rank must
  // add all of its parts, and may wait for the others to do so. Throws kInternal for a part too
  // many or of another length.
  void Add(std::span<const T> part);

  // Collective: returns the sum on all ranks; of no parts, zeros. Throws kInternal when parts are
  // missing. Nothing can be added afterwards.
  [[nodiscard]] std::vector<T> Finish();

 private:
  // Returns how many parts rank r adds up to the end of the round that begins with `from`.
  [[nodiscard]] int64_t InRound(int r, int64_t from) const;
  // Returns where the slice of rank r begins.
  [[nodiscard]] int64_t SliceBegin(int r) const { return length_ * r / ranks_.size(); }
  [[nodiscard]] int64_t SliceLength(int r) const { return SliceBegin(r + 1) - SliceBegin(r); }
  // Exchanges the parts of a round, and adds their slices to sum_.
  void FinishRound();

  Ranks& ranks_;
  int64_t count_ = 0;
  int64_t length_ = 0;
  int64_t per_round_ = 1;    // parts of a rank that travel together
  int64_t added_ = 0;        // this rank's parts so far
  int64_t round_begin_ = 0;  // this rank's parts before the round
  std::vector<T> buffer_;    // [parts of the round, length]
  std::vector<T> sum_;       // this rank's slice
};

extern template class OrderedSum<float>;
extern template class OrderedSum<double>;

}  // namespace kvc
