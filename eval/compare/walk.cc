#include "eval/compare/walk.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "core/io/json.h"
#include "eval/compare/compare.h"
#include "eval/compare/statistics.h"

namespace kvc::eval {
namespace {

// Walks one batch of samples. Returns its scores as bytes for the other ranks:
// [sample][contestant].
std::string WalkBatch(std::span<const Contestant> contestants,
                      std::span<const std::vector<int32_t>> batch,
                      const WalkOptions& options,
                      ThreadPool& pool,
                      const std::function<void()>& tick) {
  Json scores = Json::array();
  for (const auto& sample : CompareSamples(contestants, batch, options, pool, tick)) {
    scores.push_back(Json::array());
    for (const SampleScores& score : sample) scores.back().push_back(score.ToJson());
  }
  return scores.dump();
}

// Walks all samples: [contestant][sample]. Batches are the parts that ranks share, because
// sequences that are decoded together are multiplied together.
std::vector<std::vector<SampleScores>> WalkAll(std::span<const Contestant> contestants,
                                               const std::vector<std::vector<int32_t>>& samples,
                                               const WalkOptions& options,
                                               ThreadPool& pool,
                                               Progress& progress,
                                               Ranks& ranks) {
  const int64_t count = std::ssize(samples);
  const int64_t batches = (count + options.batch - 1) / options.batch;
  const std::vector<int64_t> own = ranks.PartsOf(batches);
  if (batches < ranks.size()) {
    progress.Log("decode: " + std::to_string(batches) + " batches for " +
                 std::to_string(ranks.size()) + " ranks; a smaller --batch makes more");
  }
  const int64_t steps = std::ssize(own) * options.decode;
  int64_t done = 0;
  std::vector<std::string> mine;
  for (const int64_t part : own) {
    const int64_t first = part * options.batch;
    const auto batch = std::span(samples).subspan(first, std::min(options.batch, count - first));
    mine.push_back(WalkBatch(contestants, batch, options, pool,
                             [&] { progress.Report("decode", ++done, steps); }));
  }
  std::vector<std::vector<SampleScores>> all(contestants.size());
  for (const std::string& bytes : ranks.AllGatherParts(mine, batches)) {
    for (const Json& sample : ParseJson(bytes, "scores")) {
      for (size_t c = 0; c < contestants.size(); ++c) {
        all[c].push_back(SampleScores::FromJson(sample[c], "scores"));
      }
    }
  }
  return all;
}

}  // namespace

std::vector<std::vector<int32_t>> CutSamples(const Tokenizer& tokenizer,
                                             const std::vector<std::string>& documents,
                                             const WalkOptions& options) {
  KVC_CHECK(options.context > 0 && options.decode > 0 && options.samples > 0, kUsage,
            "--context, --decode, --samples: expected positive numbers");
  std::vector<int32_t> ids;
  for (const std::string& document : documents) {
    const auto tokens = tokenizer.Encode(document, SpecialTokens::kNone);
    ids.insert(ids.end(), tokens.begin(), tokens.end());
  }
  const int64_t window = options.context + options.decode;
  const auto available = static_cast<int64_t>(ids.size());
  KVC_CHECK(available >= window, kBadInput,
            "--text: expected at least one window of {} tokens, got {}; give more text or lower "
            "--context or --decode",
            window, available);
  const int64_t count = std::min(options.samples, available / window);
  // The first window begins the text and the last ends it.
  const int64_t spread = count > 1 ? (available - window) / (count - 1) : 0;
  std::vector<std::vector<int32_t>> samples;
  for (int64_t s = 0; s < count; ++s) {
    samples.emplace_back(ids.begin() + s * spread, ids.begin() + s * spread + window);
  }
  return samples;
}

void CacheMean::Add(const runtime::CacheCounters& counters) {
  full_ += static_cast<double>(counters.full_bytes);
  logical_ += static_cast<double>(counters.logical_bytes);
  allocated_ += static_cast<double>(counters.allocated_bytes);
  peak_ += static_cast<double>(counters.peak_bytes);
  tiers_.AddTierTokens(counters);
  ++count_;
}

runtime::CacheCounters CacheMean::Mean() const {
  const auto mean = [this](double sum) {
    return count_ > 0 ? int64_t{std::llround(sum / static_cast<double>(count_))} : int64_t{0};
  };
  runtime::CacheCounters counters = tiers_;
  counters.full_bytes = mean(full_);
  counters.logical_bytes = mean(logical_);
  counters.allocated_bytes = mean(allocated_);
  counters.peak_bytes = mean(peak_);
  return counters;
}

Divergence Summarise(std::span<const SampleScores> scores) {
  Divergence result;
  std::vector<double> klds;
  std::vector<double> nll_sums, kld_sums, same_sums;  // [samples]
  std::vector<int64_t> counts;
  for (const SampleScores& sample : scores) {
    counts.push_back(std::ssize(sample.nll));
    nll_sums.push_back(std::accumulate(sample.nll.begin(), sample.nll.end(), 0.0));
    kld_sums.push_back(std::accumulate(sample.kld.begin(), sample.kld.end(), 0.0));
    same_sums.push_back(static_cast<double>(sample.same_top));
    klds.insert(klds.end(), sample.kld.begin(), sample.kld.end());
    result.model.cache.Add(sample.end);
    result.model.tokens += counts.back();
  }
  const SampledMean nll = MeanOfSamples(nll_sums, counts);
  result.model.nll = nll.mean;
  result.model.stderr_nll = nll.standard_error;
  result.model.perplexity = std::exp(nll.mean);
  const SampledMean kld = MeanOfSamples(kld_sums, counts);
  result.kld_mean = kld.mean;
  result.kld_stderr = kld.standard_error;
  const SampledMean same = MeanOfSamples(same_sums, counts);
  result.same_top = same.mean;
  result.same_top_stderr = same.standard_error;
  result.kld_median = Quantile(klds, 0.5);
  result.kld_p999 = Quantile(klds, 0.999);
  return result;
}

Perplexity MeasurePerplexity(runtime::Session& session,
                             const std::vector<std::vector<int32_t>>& samples,
                             const WalkOptions& options,
                             ThreadPool& pool,
                             Progress& progress,
                             Ranks& ranks) {
  const Contestant alone[] = {{"", &session, {}}};
  return Summarise(WalkAll(alone, samples, options, pool, progress, ranks)[0]).model;
}

Divergence MeasureDivergence(runtime::Session& session,
                             runtime::Session& reference,
                             const std::vector<std::vector<int32_t>>& samples,
                             const WalkOptions& options,
                             ThreadPool& pool,
                             Progress& progress,
                             Ranks& ranks) {
  const Contestant both[] = {{"--against", &reference, {}}, {"bundle", &session, {}}};
  const auto scores = WalkAll(both, samples, options, pool, progress, ranks);
  Divergence result = Summarise(scores[1]);
  result.reference = Summarise(scores[0]).model;
  return result;
}

}  // namespace kvc::eval
