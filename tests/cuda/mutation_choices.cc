#include "tests/cuda/mutation_choices.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/cuda/finish_scores.h"
#include "kernels/cuda/reserve_shares.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/select.h"
#include "tests/cuda/device_array.h"

namespace kvc::cuda {
namespace {

// The token drawn from the first `top_k` in `order`, the fewest of them with `top_p` of the mass.
int32_t DrawnBy(const std::vector<float>& logits,
                const std::vector<int32_t>& order,
                const SampleSettings& settings,
                double uniform) {
  std::vector<double> sums;  // of weights, up to each token
  for (const int32_t id : order) {
    sums.push_back((sums.empty() ? 0.0 : sums.back()) +
                   std::exp(static_cast<double>(logits[static_cast<size_t>(id)]) - 6.0));
  }
  sums.resize(static_cast<size_t>(settings.top_k > 0 ? settings.top_k : std::ssize(order)));
  const auto kept = std::lower_bound(sums.begin(), sums.end(), settings.top_p * sums.back());
  const auto drawn = std::upper_bound(sums.begin(), kept, uniform * *kept);
  return order[static_cast<size_t>(drawn - sums.begin())];
}

}  // namespace

double RunSelect(Rng& rng) {
  double worst = 0.0;
  for (const int64_t rows : {300, 9000}) {
    std::vector<float> scores(static_cast<size_t>(rows));
    for (float& score : scores) score = static_cast<float>(rng.NextBelow(100)) * 0.01F;
    const int64_t count = rows / 3;
    std::vector<int32_t> expected(static_cast<size_t>(rows));
    std::iota(expected.begin(), expected.end(), 0);
    std::stable_sort(expected.begin(), expected.end(),
                     [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
    expected.resize(static_cast<size_t>(count));
    std::sort(expected.begin(), expected.end());
    const DeviceArray<float> device_scores(scores);
    const DeviceArray<int32_t> chosen(std::vector<int32_t>(static_cast<size_t>(count), -1));
    Selection in;
    in.scores = device_scores.data();
    in.chosen = chosen.data();
    in.rows = static_cast<int32_t>(rows);
    in.count = static_cast<int32_t>(count);
    const DeviceArray<Selection> table(std::vector<Selection>{in});
    SelectTop(table.data(), 1, nullptr);
    worst = chosen.Host() == expected ? worst : INFINITY;
  }
  return worst;
}

double RunFinish(Rng& rng) {
  constexpr int32_t kRows = 300;
  std::vector<float> sums(kRows);
  for (float& sum : sums) sum = static_cast<float>(rng.NextDouble());
  const DeviceArray<float> device_sums(sums);
  const DeviceArray<float> scores(size_t{2 * kRows});
  const DeviceArray<int32_t> faults(std::vector<int32_t>{0});
  SumFinish in;
  in.sums = device_sums.data();
  in.scores = scores.data();
  in.rows = kRows;
  in.window = 40;
  in.pool = 5;
  in.faults = faults.data();
  std::vector<SumFinish> finishes = {in, in};
  finishes[1].scores += kRows;
  const DeviceArray<SumFinish> table(finishes);
  FinishScores(table.data(), 2, kRows, nullptr);
  const DeviceArray<HeadsSum> heads(std::vector<HeadsSum>{{scores.data(), kRows, 2, 0}});
  SumHeads(heads.data(), 1, kRows, nullptr);
  const std::vector<float> now = scores.Host();
  for (int32_t j = 0; j < kRows; ++j) {
    const int32_t begin = j < kRows - 40 ? std::max(0, j - 2) : std::max(kRows - 40, j - 2);
    const int32_t end = j < kRows - 40 ? std::min(kRows - 40, j + 3) : std::min(kRows, j + 3);
    const float largest = *std::max_element(sums.begin() + begin, sums.begin() + end);
    if (now[static_cast<size_t>(j)] != largest + largest) return INFINITY;
  }
  return 0.0;
}

double RunReserve(Rng& rng) {
  constexpr int32_t kRows = 700;
  std::vector<float> scores(kRows);
  std::vector<float> other(kRows);
  for (float& score : scores) score = static_cast<float>(rng.NextNormal());
  for (float& score : other) score = static_cast<float>(rng.NextBelow(90));
  const DeviceArray<float> device_scores(scores);
  const DeviceArray<float> device_other(other);
  const DeviceArray<uint32_t> scratch(size_t{kReserveScratch * kRows});
  const DeviceArray<ShareReserve> table(std::vector<ShareReserve>{
      {device_other.data(), device_scores.data(), kRows, 1.0, scratch.data()}});
  ReserveShares(table.data(), 1, nullptr);
  std::vector<float> sorted = scores;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  std::vector<int32_t> order(kRows);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return other[a] > other[b]; });
  for (size_t p = 0; p < order.size(); ++p)
    scores[order[p]] = std::max(scores[order[p]], sorted[p]);
  return device_scores.Host() == scores ? 0.0 : INFINITY;
}

double RunSample(Rng& rng) {
  std::vector<float> logits(300);
  for (float& x : logits) x = static_cast<float>(std::min(std::round(4.0 * rng.NextNormal()), 6.0));
  std::vector<int32_t> by_id(logits.size());
  std::iota(by_id.begin(), by_id.end(), 0);
  std::vector<int32_t> by_logit = by_id;
  std::stable_sort(by_logit.begin(), by_logit.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  const DeviceArray<float> device(logits);
  const DeviceArray<int32_t> id(1);
  const ConstRows row = {device.data(), DType::kF32, 1, 300, 300};
  ArgMax(row, id.data(), nullptr);
  bool right = id.Host()[0] == by_logit[0];
  for (const SampleSettings& settings : {SampleSettings{1.0, 200, 0.9}, SampleSettings{1.0}}) {
    const std::vector<int32_t>& order = settings.top_k > 0 ? by_logit : by_id;
    for (const double uniform : {0.0, 0.3, 0.8, 0.97}) {
      const DeviceArray<double> number(std::vector<double>{uniform});
      Sample(row, settings, number.data(), id.data(), nullptr);
      right = id.Host()[0] == DrawnBy(logits, order, settings, uniform) && right;
    }
  }
  return right ? 0.0 : 2.0;
}

}  // namespace kvc::cuda
