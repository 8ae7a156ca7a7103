#include "eval/compare.h"

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "eval/statistics.h"

namespace kvc::eval {
namespace {

// Tokens decoded beyond the expected answer's length: a model may put a filler word or a quote
// first.
constexpr int64_t kExtraTokens = 4;

int64_t VocabularyOf(const Contestant& contestant) {
  return contestant.session->bundle().manifest().model.vocab_size;
}

// The sequences of all contestants on some prompts, by session.
class Runner {
 public:
  Runner(std::span<const Contestant> contestants, size_t prompts)
      : prompts_(prompts), places_(contestants.size()) {
    vocabulary_ = VocabularyOf(contestants[0]);
    for (size_t c = 0; c < contestants.size(); ++c) {
      KVC_CHECK(VocabularyOf(contestants[c]) == vocabulary_,
                kBadShape,
                contestants[c].name,
                ": expected the reference's vocabulary of ",
                vocabulary_,
                ", got ",
                VocabularyOf(contestants[c]),
                "; compare bundles of the same model");
      Lane& lane = LaneOf(contestants[c].session);
      places_[c] = {static_cast<size_t>(&lane - lanes_.data()), lane.members.size()};
      lane.members.push_back(&contestants[c]);
    }
  }

  void Prefill(size_t prompt, std::span<const int32_t> ids, const runtime::SequenceOptions& base) {
    for (Lane& lane : lanes_) {
      std::vector<runtime::Sequence*> sequences;
      for (const Contestant* member : lane.members) {
        runtime::SequenceOptions options = base;
        options.cache = member->cache;
        lane.sequences.push_back(lane.session->NewSequence(options));
        sequences.push_back(lane.sequences.back().get());
      }
      lane.logits.resize(prompts_ * lane.members.size() * vocabulary_);
      float* rows = lane.logits.data() + prompt * lane.members.size() * vocabulary_;
      lane.session->Prefill(sequences, ids, MatrixF(rows, 1, vocabulary_));
      for (size_t m = 1; m < lane.members.size(); ++m) {
        std::copy_n(rows, vocabulary_, rows + m * vocabulary_);
      }
    }
  }

  // Feeds id(prompt, contestant).
  template <class Id>
  void Step(const Id& id) {
    for (size_t c = 0; c < places_.size(); ++c) {
      Lane& lane = lanes_[places_[c].lane];
      lane.ids.resize(lane.sequences.size());
      for (size_t p = 0; p < prompts_; ++p) lane.ids[Index(p, c)] = id(p, c);
    }
    for (Lane& lane : lanes_) {
      std::vector<runtime::Sequence*> sequences;
      for (const auto& sequence : lane.sequences) sequences.push_back(sequence.get());
      const auto rows = static_cast<int64_t>(sequences.size());
      lane.session->Decode(sequences, lane.ids, MatrixF(lane.logits.data(), rows, vocabulary_));
    }
  }

  [[nodiscard]] std::span<const float> logits(size_t prompt, size_t contestant) const {
    const Lane& lane = lanes_[places_[contestant].lane];
    return std::span(lane.logits).subspan(Index(prompt, contestant) * vocabulary_, vocabulary_);
  }
  [[nodiscard]] runtime::CacheCounters counters(size_t prompt, size_t contestant) const {
    return lanes_[places_[contestant].lane].sequences[Index(prompt, contestant)]->counters();
  }

 private:
  struct Lane {
    runtime::Session* session = nullptr;
    std::vector<const Contestant*> members;
    std::vector<std::unique_ptr<runtime::Sequence>> sequences;  // [prompt][member]
    std::vector<int32_t> ids;                                   // likewise
    std::vector<float> logits;                                  // [prompt][member][V]
  };
  struct Place {
    size_t lane = 0;
    size_t member = 0;
  };

  Lane& LaneOf(runtime::Session* session) {
    for (Lane& lane : lanes_) {
      if (lane.session == session) return lane;
    }
    lanes_.emplace_back();
    lanes_.back().session = session;
    return lanes_.back();
  }
  [[nodiscard]] size_t Index(size_t prompt, size_t contestant) const {
    const Place& place = places_[contestant];
    return prompt * lanes_[place.lane].members.size() + place.member;
  }

  size_t prompts_;
  int64_t vocabulary_ = 0;
  std::vector<Lane> lanes_;
  std::vector<Place> places_;  // by contestant
};

Json CountersToJson(const runtime::CacheCounters& counters) {
  return {
      counters.full_bytes, counters.logical_bytes, counters.allocated_bytes, counters.peak_bytes};
}

runtime::CacheCounters CountersFromJson(const Json& json,
                                        const char* key,
                                        const std::string& origin) {
  const Json& values = GetArray(json, key, origin);
  KVC_CHECK(values.size() == 4, kBadInput, origin, ": ", key, ": expected four numbers");
  return {values[0], values[1], values[2], values[3]};
}

}  // namespace

Json SampleScores::ToJson() const {
  return {{"nll", nll},
          {"kld", kld},
          {"same_top", same_top},
          {"prompt", CountersToJson(prompt)},
          {"end", CountersToJson(end)}};
}

SampleScores SampleScores::FromJson(const Json& json, const std::string& origin) {
  SampleScores scores;
  scores.nll = GetArray(json, "nll", origin).get<std::vector<float>>();
  scores.kld = GetArray(json, "kld", origin).get<std::vector<float>>();
  scores.same_top = GetInt(json, "same_top", origin);
  scores.prompt = CountersFromJson(json, "prompt", origin);
  scores.end = CountersFromJson(json, "end", origin);
  return scores;
}

std::vector<std::vector<SampleScores>> CompareSamples(std::span<const Contestant> contestants,
                                                      std::span<const std::vector<int32_t>> samples,
                                                      const WalkOptions& options,
                                                      ThreadPool& pool,
                                                      const std::function<void()>& tick) {
  const size_t count = contestants.size();
  Runner runner(contestants, samples.size());
  runtime::SequenceOptions base;
  base.decode = options.policy;
  base.reserve = options.context + options.decode;
  std::vector<std::vector<SampleScores>> scores(samples.size(), std::vector<SampleScores>(count));
  for (size_t s = 0; s < samples.size(); ++s) {
    runner.Prefill(s, std::span(samples[s]).first(options.context), base);
    for (size_t c = 0; c < count; ++c) scores[s][c].prompt = runner.counters(s, c);
  }
  for (int64_t step = 0; step < options.decode; ++step) {
    const int64_t position = options.context + step;
    const auto rows = static_cast<int64_t>(samples.size() * count);
    pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const auto s = static_cast<size_t>(row) / count;
        const auto c = static_cast<size_t>(row) % count;
        const auto p = runner.logits(s, 0);
        const auto q = runner.logits(s, c);
        SampleScores& score = scores[s][c];
        score.nll.push_back(static_cast<float>(NegativeLogLikelihood(q, samples[s][position])));
        score.kld.push_back(c == 0 ? 0.0F : static_cast<float>(KlDivergence(p, q)));
        score.same_top += c == 0 || ArgMax(p) == ArgMax(q) ? 1 : 0;
      }
    });
    tick();
    if (step + 1 < options.decode)
      runner.Step([&](size_t s, size_t) { return samples[s][position]; });
  }
  for (size_t s = 0; s < samples.size(); ++s) {
    for (size_t c = 0; c < count; ++c) scores[s][c].end = runner.counters(s, c);
  }
  return scores;
}

std::vector<NeedleScore> CompareNeedle(std::span<const Contestant> contestants,
                                       const Tokenizer& tokenizer,
                                       const NeedlePrompt& prompt,
                                       bool question_before,
                                       runtime::DecodePolicy policy) {
  std::vector<int32_t> prefill = prompt.context;
  std::vector<int32_t> rest = prompt.question;  // fed token by token
  if (question_before) {
    const auto lead = rest.end() - prompt.lead;
    prefill.insert(prefill.end(), rest.begin(), lead);
    rest.erase(rest.begin(), lead);
  }
  const auto answer_tokens = static_cast<int64_t>(prompt.answer.size()) + kExtraTokens;
  runtime::SequenceOptions base;
  base.decode = policy;
  base.reserve = static_cast<int64_t>(prefill.size() + rest.size()) + answer_tokens;
  Runner runner(contestants, 1);
  runner.Prefill(0, prefill, base);
  for (const int32_t id : rest) runner.Step([id](size_t, size_t) { return id; });
  std::vector<std::vector<int32_t>> answers(contestants.size());
  for (int64_t t = 0; t < answer_tokens; ++t) {
    for (size_t c = 0; c < contestants.size(); ++c)
      answers[c].push_back(ArgMax(runner.logits(0, c)));
    if (t + 1 < answer_tokens) runner.Step([&](size_t, size_t c) { return answers[c].back(); });
  }
  std::vector<NeedleScore> scores;
  for (size_t c = 0; c < contestants.size(); ++c) {
    scores.push_back(
        {NeedleAnswered(tokenizer.Decode(answers[c]), prompt.value), runner.counters(0, c)});
  }
  return scores;
}

}  // namespace kvc::eval
