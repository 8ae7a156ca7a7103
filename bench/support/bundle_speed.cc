#include "bench/support/bundle_speed.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/cache/manifest.h"
#include "eval/compare/walk.h"

namespace kvc::bench {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Rates RatesOf(const Times& times, int64_t tokens) {
  const auto count = static_cast<double>(tokens);
  const auto runs = static_cast<double>(times.sorted.size());
  Rates rates = {count / times.best, count / times.median};
  for (const double seconds : times.sorted) rates.mean += count / seconds / runs;
  double squares = 0.0;
  for (const double seconds : times.sorted) squares += std::pow(count / seconds - rates.mean, 2);
  if (times.sorted.size() > 1) rates.deviation = std::sqrt(squares / (runs - 1.0));
  return rates;
}

int64_t SpeedPlan::PrefillAt(int64_t depth) const { return std::max<int64_t>(1, depth - decode); }

int64_t SpeedPlan::LongestSequence() const {
  return std::max(prompt, PrefillAt(depths.empty() ? 0 : depths.back()) + decode);
}

BundleSpeed::BundleSpeed(runtime::Session& session,
                         const SpeedPlan& plan,
                         std::span<const int32_t> ids)
    : session_(session),
      plan_(plan),
      ids_(ids),
      logits_(static_cast<size_t>(session.bundle().manifest().model.vocab_size)) {
  // What is made when it is first used (tables, memory, a device's code) counts for no test.
  constexpr int64_t kFewTokens = 16;
  constexpr int64_t kSteps = 2;
  const int64_t tokens = std::min({kFewTokens, plan.prompt, std::ssize(ids) - kSteps});
  if (tokens < 1) return;
  const auto sequence = Prefill(tokens, kSteps).first;
  for (int64_t t = 0; t < kSteps; ++t) Decode(*sequence, ids_[tokens + t]);
}

Rates BundleSpeed::Prompt() {
  const Times times = Repeat(plan_.repetitions, [&] { return Prefill(plan_.prompt, 0).second; });
  return RatesOf(times, plan_.prompt);
}

DepthSpeed BundleSpeed::Depth(int64_t depth) {
  DepthSpeed speed;
  speed.depth = depth;
  speed.prefill_tokens = plan_.PrefillAt(depth);
  const auto [sequence, seconds] = Prefill(speed.prefill_tokens, plan_.decode);
  speed.prefill_rate = static_cast<double>(speed.prefill_tokens) / seconds;
  eval::CacheMean cache;
  const Times times = Repeat(plan_.repetitions, [&, &prefilled = *sequence] {
    const auto copy = prefilled.Clone();
    const auto start = Clock::now();
    for (int64_t t = 0; t < plan_.decode; ++t) Decode(*copy, ids_[speed.prefill_tokens + t]);
    const double took = SecondsSince(start);
    cache.Add(copy->counters());
    return took;
  });
  speed.decode = RatesOf(times, plan_.decode);
  speed.cache = cache.Mean();
  step_seconds_.push_back(times.best / static_cast<double>(plan_.decode));
  cache_bytes_.push_back(static_cast<double>(speed.cache.logical_bytes));
  speed.attention_bytes_per_second = ReadRate();
  return speed;
}

std::pair<std::unique_ptr<runtime::Sequence>, double> BundleSpeed::Prefill(int64_t tokens,
                                                                           int64_t more) {
  runtime::SequenceOptions options;
  options.reserve = tokens + more;
  auto sequence = session_.NewSequence(options);
  const auto start = Clock::now();
  session_.Prefill(*sequence, ids_.first(static_cast<size_t>(tokens)),
                   MatrixF(logits_.data(), 1, std::ssize(logits_)));
  const double seconds = SecondsSince(start);
  return {std::move(sequence), seconds};
}

void BundleSpeed::Decode(runtime::Sequence& sequence, int32_t id) {
  runtime::Sequence* const one[] = {&sequence};
  session_.Decode(one, std::span(&id, 1), MatrixF(logits_.data(), 1, std::ssize(logits_)));
}

std::optional<double> BundleSpeed::ReadRate() const {
  // Steps of the same depth differ by less than a tenth of a step.
  constexpr double kLeastShare = 0.1;
  const double more_seconds = step_seconds_.back() - step_seconds_.front();
  const double more_bytes = cache_bytes_.back() - cache_bytes_.front();
  if (more_bytes <= 0.0 || more_seconds < kLeastShare * step_seconds_.front()) return std::nullopt;
  return more_bytes / more_seconds;
}

}  // namespace kvc::bench
