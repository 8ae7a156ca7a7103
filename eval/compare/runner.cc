#include "eval/compare/runner.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/processor_time.h"
#include "core/cache/manifest.h"

namespace kvc::eval {
namespace {

int64_t VocabularyOf(const Contestant& contestant) {
  return contestant.session->bundle().manifest().model.vocab_size;
}

}  // namespace

Runner::Runner(std::span<const Contestant> contestants, size_t prompts)
    : prompts_(prompts), vocabulary_(VocabularyOf(contestants[0])), places_(contestants.size()) {
  for (size_t c = 0; c < contestants.size(); ++c) {
    KVC_CHECK(
        VocabularyOf(contestants[c]) == vocabulary_, kBadShape,
        "{}: expected the reference's vocabulary of {}, got {}; compare bundles of the same model",
        contestants[c].name, vocabulary_, VocabularyOf(contestants[c]));
    Lane& lane = LaneOf(contestants[c].session);
    places_[c] = {static_cast<size_t>(&lane - lanes_.data()), lane.members.size()};
    lane.members.push_back(&contestants[c]);
  }
}

void Runner::Prefill(size_t prompt,
                     std::span<const int32_t> ids,
                     const runtime::SequenceOptions& base) {
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

void Runner::Step(const std::function<int32_t(size_t, size_t)>& next) {
  for (size_t c = 0; c < places_.size(); ++c) {
    Lane& lane = lanes_[places_[c].lane];
    lane.ids.resize(lane.sequences.size());
    for (size_t p = 0; p < prompts_; ++p) lane.ids[Index(p, c)] = next(p, c);
  }
  for (Lane& lane : lanes_) Decode(lane);
}

void Runner::Decode(Lane& lane) {
  std::vector<runtime::Sequence*> sequences;
  std::vector<int32_t> ids;
  std::vector<size_t> owners;
  for (size_t i = 0; i < lane.ids.size(); ++i) {
    if (lane.ids[i] == kRest) continue;
    sequences.push_back(lane.sequences[i].get());
    ids.push_back(lane.ids[i]);
    owners.push_back(i);
  }
  if (sequences.empty()) return;
  const auto rows = static_cast<int64_t>(sequences.size());
  if (sequences.size() == lane.ids.size()) {
    lane.session->Decode(sequences, ids, MatrixF(lane.logits.data(), rows, vocabulary_));
    return;
  }
  scratch_.resize(sequences.size() * vocabulary_);
  lane.session->Decode(sequences, ids, MatrixF(scratch_.data(), rows, vocabulary_));
  for (size_t row = 0; row < owners.size(); ++row) {
    std::copy_n(scratch_.data() + row * vocabulary_, vocabulary_,
                lane.logits.data() + owners[row] * vocabulary_);
  }
}

double Runner::StepAlone(size_t prompt, size_t contestant, int32_t id) {
  Lane& lane = lanes_[places_[contestant].lane];
  runtime::Sequence* const one[] = {lane.sequences[Index(prompt, contestant)].get()};
  scratch_.resize(vocabulary_);
  const double choosing = one[0]->counters().choosing_seconds;
  const double start = ProcessorSeconds();
  lane.session->Decode(one, {&id, 1}, MatrixF(scratch_.data(), 1, vocabulary_));
  const double seconds = ProcessorSeconds() - start;
  return seconds - (one[0]->counters().choosing_seconds - choosing);
}

std::span<const float> Runner::logits(size_t prompt, size_t contestant) const {
  const Lane& lane = lanes_[places_[contestant].lane];
  return std::span(lane.logits).subspan(Index(prompt, contestant) * vocabulary_, vocabulary_);
}

runtime::CacheCounters Runner::counters(size_t prompt, size_t contestant) const {
  return lanes_[places_[contestant].lane].sequences[Index(prompt, contestant)]->counters();
}

Runner::Lane& Runner::LaneOf(runtime::Session* session) {
  for (Lane& lane : lanes_) {
    if (lane.session == session) return lane;
  }
  lanes_.emplace_back();
  lanes_.back().session = session;
  return lanes_.back();
}

size_t Runner::Index(size_t prompt, size_t contestant) const {
  const Place& place = places_[contestant];
  return prompt * lanes_[place.lane].members.size() + place.member;
}

}  // namespace kvc::eval
