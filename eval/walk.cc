#include "eval/walk.h"

#include <cmath>
#include <memory>

#include "core/error.h"
#include "eval/statistics.h"

namespace kvc::eval {
namespace {

// Sequences of one batch in one session, and the logits of their last tokens.
class BatchWalker {
 public:
  BatchWalker(runtime::Session& session, int64_t vocabulary)
      : session_(session), vocabulary_(vocabulary) {}

  // Prefills each sample's first `context` tokens.
  void Prefill(std::span<const std::vector<int32_t>> samples, const WalkOptions& options) {
    sequences_.clear();
    logits_.resize(samples.size() * vocabulary_);
    for (size_t b = 0; b < samples.size(); ++b) {
      runtime::SequenceOptions sequence_options;
      sequence_options.decode = options.policy;
      sequence_options.reserve = options.context + options.decode;
      sequences_.push_back(session_.NewSequence(sequence_options));
      session_.Prefill(*sequences_.back(),
                       std::span(samples[b]).first(options.context),
                       MatrixF(logits_.data() + b * vocabulary_, 1, vocabulary_));
    }
  }
  // Feeds token `position` of every sample.
  void Step(std::span<const std::vector<int32_t>> samples, int64_t position) {
    std::vector<runtime::Sequence*> sequences;
    std::vector<int32_t> ids;
    for (size_t b = 0; b < samples.size(); ++b) {
      sequences.push_back(sequences_[b].get());
      ids.push_back(samples[b][position]);
    }
    session_.Decode(
        sequences, ids, MatrixF(logits_.data(), static_cast<int64_t>(ids.size()), vocabulary_));
  }
  [[nodiscard]] std::span<const float> logits(size_t b) const {
    return std::span(logits_).subspan(b * vocabulary_, vocabulary_);
  }
  void CountCaches(CacheMean& mean) const {
    for (const auto& sequence : sequences_) mean.Add(sequence->counters());
  }

 private:
  runtime::Session& session_;
  int64_t vocabulary_;
  std::vector<std::unique_ptr<runtime::Sequence>> sequences_;
  std::vector<float> logits_;  // [B, V]
};

// Sums of one model over the samples, turned into a Perplexity at the end.
class NllSums {
 public:
  explicit NllSums(size_t samples) : sums_(samples, 0.0), counts_(samples, 0) {}
  void Add(size_t sample, double nll) {
    sums_[sample] += nll;
    ++counts_[sample];
  }
  void Finish(Perplexity& result) const {
    double sum = 0.0;
    for (size_t s = 0; s < sums_.size(); ++s) {
      sum += sums_[s];
      result.tokens += counts_[s];
    }
    result.nll = sum / static_cast<double>(result.tokens);
    result.perplexity = std::exp(result.nll);
    if (sums_.size() < 2) return;
    double squares = 0.0;
    for (size_t s = 0; s < sums_.size(); ++s) {
      const double difference = sums_[s] / static_cast<double>(counts_[s]) - result.nll;
      squares += difference * difference;
    }
    const auto n = static_cast<double>(sums_.size());
    result.stderr_nll = std::sqrt(squares / (n - 1.0) / n);
  }

 private:
  std::vector<double> sums_;
  std::vector<int64_t> counts_;
};

using TokenVisitor = std::function<void(size_t sample, size_t b, int32_t target)>;

// Walks all samples in batches through every walker in lock step; `visit` sees each predicted token
// while the walkers' logits for it stand.
void WalkAll(std::span<BatchWalker* const> walkers,
             std::span<CacheMean* const> caches,
             const std::vector<std::vector<int32_t>>& samples,
             const WalkOptions& options,
             Progress& progress,
             const TokenVisitor& visit) {
  const auto count = static_cast<int64_t>(samples.size());
  const int64_t total = count * options.decode;
  int64_t done = 0;
  for (int64_t first = 0; first < count; first += options.batch) {
    const auto batch = std::span(samples).subspan(first, std::min(options.batch, count - first));
    for (BatchWalker* walker : walkers) walker->Prefill(batch, options);
    for (int64_t step = 0; step < options.decode; ++step) {
      const int64_t position = options.context + step;
      for (size_t b = 0; b < batch.size(); ++b) visit(first + b, b, batch[b][position]);
      done += static_cast<int64_t>(batch.size());
      progress.Report("decode", done, total);
      if (step + 1 == options.decode) break;
      for (BatchWalker* walker : walkers) walker->Step(batch, position);
    }
    for (size_t w = 0; w < walkers.size(); ++w) walkers[w]->CountCaches(*caches[w]);
  }
}

int64_t VocabularyOf(const runtime::Session& session) {
  return session.bundle().manifest().model.vocab_size;
}

}  // namespace

std::vector<std::vector<int32_t>> CutSamples(const Tokenizer& tokenizer,
                                             const std::vector<std::string>& documents,
                                             const WalkOptions& options) {
  KVC_CHECK(options.context > 0 && options.decode > 0 && options.samples > 0,
            kUsage,
            "--context, --decode, --samples: expected positive numbers");
  std::vector<int32_t> ids;
  for (const std::string& document : documents) {
    const auto tokens = tokenizer.Encode(document, SpecialTokens::kNone);
    ids.insert(ids.end(), tokens.begin(), tokens.end());
  }
  const int64_t window = options.context + options.decode;
  const auto available = static_cast<int64_t>(ids.size());
  KVC_CHECK(available >= window,
            kBadInput,
            "--text: expected at least one window of ",
            window,
            " tokens, got ",
            available,
            "; give more text or lower --context or --decode");
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
  ++count_;
}

Json CacheMean::ToJson() const {
  const auto mean = [this](double sum) {
    return count_ > 0 ? std::llround(sum / static_cast<double>(count_)) : 0LL;
  };
  return {{"full_bytes", mean(full_)},
          {"logical_bytes", mean(logical_)},
          {"allocated_bytes", mean(allocated_)},
          {"peak_bytes", mean(peak_)}};
}

Perplexity MeasurePerplexity(runtime::Session& session,
                             const std::vector<std::vector<int32_t>>& samples,
                             const WalkOptions& options,
                             Progress& progress) {
  Perplexity result;
  NllSums sums(samples.size());
  BatchWalker walker(session, VocabularyOf(session));
  BatchWalker* const walkers[] = {&walker};
  CacheMean* const caches[] = {&result.cache};
  WalkAll(
      walkers, caches, samples, options, progress, [&](size_t sample, size_t b, int32_t target) {
        sums.Add(sample, NegativeLogLikelihood(walker.logits(b), target));
      });
  sums.Finish(result);
  return result;
}

Divergence MeasureDivergence(runtime::Session& session,
                             runtime::Session& reference,
                             const std::vector<std::vector<int32_t>>& samples,
                             const WalkOptions& options,
                             Progress& progress) {
  const int64_t vocabulary = VocabularyOf(session);
  KVC_CHECK(vocabulary == VocabularyOf(reference),
            kBadShape,
            "--against: expected a vocabulary of ",
            vocabulary,
            ", got ",
            VocabularyOf(reference),
            "; compare bundles of the same model");
  Divergence result;
  NllSums sums(samples.size());
  NllSums reference_sums(samples.size());
  std::vector<double> klds;
  int64_t same = 0;
  BatchWalker walker(session, vocabulary);
  BatchWalker reference_walker(reference, vocabulary);
  BatchWalker* const walkers[] = {&walker, &reference_walker};
  CacheMean* const caches[] = {&result.model.cache, &result.reference.cache};
  WalkAll(
      walkers, caches, samples, options, progress, [&](size_t sample, size_t b, int32_t target) {
        const auto p = reference_walker.logits(b);
        const auto q = walker.logits(b);
        sums.Add(sample, NegativeLogLikelihood(q, target));
        reference_sums.Add(sample, NegativeLogLikelihood(p, target));
        klds.push_back(KlDivergence(p, q));
        same += ArgMax(p) == ArgMax(q) ? 1 : 0;
      });
  sums.Finish(result.model);
  reference_sums.Finish(result.reference);
  double sum = 0.0;
  for (const double kld : klds) sum += kld;
  const auto n = static_cast<double>(klds.size());
  result.kld_mean = sum / n;
  result.kld_median = Quantile(klds, 0.5);
  result.kld_p999 = Quantile(klds, 0.999);
  result.same_top = static_cast<double>(same) / n;
  return result;
}

}  // namespace kvc::eval
