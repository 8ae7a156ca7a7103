#include "bench/support/bundle_speed.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/cache/manifest.h"
#include "eval/compare/walk.h"

namespace kvc::bench {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<std::unique_ptr<runtime::Sequence>> Copies(const runtime::Sequence& sequence,
                                                       int64_t count) {
  std::vector<std::unique_ptr<runtime::Sequence>> copies;
  for (int64_t i = 0; i < count; ++i) copies.push_back(sequence.Clone());
  return copies;
}

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
      logits_(static_cast<size_t>(plan.batch * session.bundle().manifest().model.vocab_size)) {
  // What is made when it is first used (tables, memory, a device's code) counts for no test.
  constexpr int64_t kFewTokens = 16;
  constexpr int64_t kSteps = 2;
  const int64_t tokens = std::min({kFewTokens, plan.prompt, std::ssize(ids) - kSteps});
  if (tokens < 1) return;
  const auto sequences = Copies(*Prefill(tokens, kSteps).first, plan.batch);
  for (int64_t t = 0; t < kSteps; ++t) Decode(sequences, ids_[tokens + t]);
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
    const auto copies = Copies(prefilled, plan_.batch);
    const auto start = Clock::now();
    for (int64_t t = 0; t < plan_.decode; ++t) Decode(copies, ids_[speed.prefill_tokens + t]);
    const double took = SecondsSince(start);
    cache.Add(copies[0]->counters());
    return took;
  });
  speed.decode = RatesOf(times, plan_.batch * plan_.decode);
  speed.cache = cache.Mean();
  step_seconds_.push_back(times.best / static_cast<double>(plan_.decode));
  cache_bytes_.push_back(static_cast<double>(plan_.batch * speed.cache.logical_bytes));
  speed.attention_bytes_per_second = ReadRate();
  return speed;
}

std::pair<std::unique_ptr<runtime::Sequence>, double> BundleSpeed::Prefill(int64_t tokens,
                                                                           int64_t more) {
  runtime::SequenceOptions options;
  options.reserve = tokens + more;
  options.cache = plan_.cache;
  auto sequence = session_.NewSequence(options);
  const auto start = Clock::now();
  session_.Prefill(*sequence, ids_.first(static_cast<size_t>(tokens)),
                   MatrixF(logits_.data(), 1, std::ssize(logits_) / plan_.batch));
  const double seconds = SecondsSince(start);
  return {std::move(sequence), seconds};
}

void BundleSpeed::Decode(const std::vector<std::unique_ptr<runtime::Sequence>>& sequences,
                         int32_t id) {
  std::vector<runtime::Sequence*> batch;
  batch.reserve(sequences.size());
  for (const auto& sequence : sequences) batch.push_back(sequence.get());
  const std::vector<int32_t> ids(batch.size(), id);
  const auto rows = std::ssize(batch);
  session_.Decode(batch, ids, MatrixF(logits_.data(), rows, std::ssize(logits_) / rows));
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
