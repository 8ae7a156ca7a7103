#include "model/needle_source.h"

#include <algorithm>
#include <span>
#include <utility>

#include "core/base/error.h"
#include "core/io/json.h"
#include "eval/tasks/needle_task.h"

namespace kvc::model {
namespace {

using Ids = std::vector<int32_t>;

constexpr int64_t kLeastPieceTokens = 4;  // of text between facts

// The templates of the task as token ids.
struct Phrases {
  explicit Phrases(const Tokenizer& tokenizer) {
    for (const std::string& key : NeedleKeys()) {
      const std::string fact = NeedleSentence(key, "");  // " The code of KEY is ."
      facts.push_back(EncodeContinuation(tokenizer, fact.substr(0, fact.size() - 2)));
      questions.push_back(EncodeContinuation(tokenizer, NeedleQuestion(key)));
    }
    for (const std::string& value : NeedleValues()) {
      values.push_back(EncodeContinuation(tokenizer, " " + value));
    }
    stop = EncodeContinuation(tokenizer, ".");
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      if (id != tokenizer.bos_id() && id != tokenizer.eos_id()) {
        ordinary.push_back(id);
      }
    }
  }

  std::vector<Ids> facts;      // [key] NeedleSentence up to " KEY is"
  std::vector<Ids> questions;  // [key] NeedleQuestion
  std::vector<Ids> values;     // [value] " VALUE"
  Ids stop;                    // "."
  Ids ordinary;                // every id but start and end of a text: what motifs are made of
};

// A sequence that grows piece by piece.
struct Sequence {
  Ids ids;
  std::vector<TokenRole> roles;

  void Add(std::span<const int32_t> piece, TokenRole role) {
    ids.insert(ids.end(), piece.begin(), piece.end());
    roles.insert(roles.end(), piece.size(), role);
  }
  [[nodiscard]] int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

class NeedleSource : public BatchSource {
 public:
  NeedleSource(const Tokenizer& tokenizer,
               Ids text,
               std::vector<NeedleStage> stages,
               int64_t batch_tokens)
      : phrases_(tokenizer),
        text_(std::move(text)),
        stages_(std::move(stages)),
        batch_tokens_(batch_tokens) {}

  TrainBatch Next(Rng& rng) override {
    const NeedleStage& stage = stages_[stage_];
    TrainBatch batch;
    batch.length = stage.length;
    batch.sequences =
        stage.batch > 0 ? stage.batch : std::max<int64_t>(1, batch_tokens_ / stage.length);
    for (int64_t n = 0; n < batch.sequences; ++n) {
      const Sequence sequence = MakeSequence(stage, rng);
      batch.ids.insert(batch.ids.end(), sequence.ids.begin(), sequence.ids.begin() + stage.length);
      batch.roles.insert(batch.roles.end(), sequence.roles.begin(),
                         sequence.roles.begin() + stage.length);
    }
    return batch;
  }

  void Observe(int64_t right, int64_t answers) override {
    ++steps_;
    window_right_.push_back(right);
    window_answers_.push_back(answers);
    if (static_cast<int64_t>(window_right_.size()) > kStageWindow) {
      window_right_.erase(window_right_.begin());
      window_answers_.erase(window_answers_.begin());
    }
    const NeedleStage& stage = stages_[stage_];
    const int64_t sum = std::accumulate(window_answers_.begin(), window_answers_.end(), int64_t{0});
    const int64_t hits = std::accumulate(window_right_.begin(), window_right_.end(), int64_t{0});
    const bool learned = steps_ >= kStageWindow && sum > 0 &&
                         static_cast<double>(hits) >= stage.until * static_cast<double>(sum);
    if ((learned || steps_ >= stage.steps) && stage_ + 1 < stages_.size()) {
      ++stage_;
      steps_ = 0;
      window_right_.clear();
      window_answers_.clear();
    }
  }

  [[nodiscard]] std::string Describe() const override {
    return "stage " + std::to_string(stage_ + 1) + " of " + std::to_string(stages_.size());
  }

  [[nodiscard]] Json State() const override {
    return {{"stage", stage_},
            {"steps", steps_},
            {"right", window_right_},
            {"answers", window_answers_}};
  }

  void Restore(const Json& state) override {
    const std::string origin = "training_state.safetensors: source";
    const int64_t stage = GetInt(state, "stage", origin);
    KVC_CHECK(stage >= 0 && stage < static_cast<int64_t>(stages_.size()), kBadInput,
              "{}: expected a stage below {}, got {}", origin, stages_.size(), stage);
    stage_ = static_cast<size_t>(stage);
    steps_ = GetInt(state, "steps", origin);
    window_right_ = GetArray(state, "right", origin).get<std::vector<int64_t>>();
    window_answers_ = GetArray(state, "answers", origin).get<std::vector<int64_t>>();
  }

 private:
  Sequence MakeSequence(const NeedleStage& stage, Rng& rng) const {
    const double kind = rng.NextDouble();
    if (kind < stage.text) {
      return TextWindow(stage.length, rng);
    }
    if (kind < stage.text + stage.repeat) {
      return Motifs(stage, rng);
    }
    return Facts(stage, rng);
  }

  Sequence TextWindow(int64_t length, Rng& rng) const {
    Sequence sequence;
    const int64_t first = rng.NextBelow(static_cast<int64_t>(text_.size()) - length + 1);
    sequence.Add(std::span(text_).subspan(static_cast<size_t>(first), static_cast<size_t>(length)),
                 TokenRole::kPlain);
    return sequence;
  }

  Ids RandomTokens(int64_t count, Rng& rng) const {
    Ids ids;
    for (int64_t i = 0; i < count; ++i) {
      ids.push_back(phrases_.ordinary[static_cast<size_t>(
          rng.NextBelow(static_cast<int64_t>(phrases_.ordinary.size())))]);
    }
    return ids;
  }

  Sequence Motifs(const NeedleStage& stage, Rng& rng) const {
    // Motifs have many times as many predictable tokens as facts: counted together, they would hide
    // whether facts are found.
    const bool counted = stage.text + stage.repeat >= 1;
    std::vector<Ids> motifs(static_cast<size_t>(1 + rng.NextBelow(stage.motifs)));
    for (Ids& motif : motifs) {
      motif = RandomTokens(2 + rng.NextBelow(stage.motif - 1), rng);
    }
    std::vector<bool> seen(motifs.size());
    Sequence sequence;
    while (sequence.size() < stage.length) {
      sequence.Add(RandomTokens(rng.NextBelow(stage.filler + 1), rng), TokenRole::kRandom);
      const auto m = static_cast<size_t>(rng.NextBelow(static_cast<int64_t>(motifs.size())));
      const std::span<const int32_t> motif(motifs[m]);
      const TokenRole known = counted ? TokenRole::kAnswer : TokenRole::kPlain;
      sequence.Add(motif.first(1), TokenRole::kRandom);
      sequence.Add(motif.subspan(1), seen[m] ? known : TokenRole::kRandom);
      seen[m] = true;
    }
    return sequence;
  }

  Sequence Facts(const NeedleStage& stage, Rng& rng) const {
    const int64_t count = stage.facts < 2 ? stage.facts : 2 + rng.NextBelow(stage.facts - 1);
    const std::vector<int64_t> keys = SampleDistinct(count, stage.words, rng);
    const std::vector<int64_t> values = SampleDistinct(count, stage.words, rng);
    int64_t told = 0;
    Sequence sequence;
    while (sequence.size() < stage.length) {
      if (rng.NextDouble() < stage.haystack) {
        const int64_t tokens =
            kLeastPieceTokens + rng.NextBelow(stage.piece - kLeastPieceTokens + 1);
        sequence.Add(TextWindow(tokens, rng).ids, TokenRole::kPlain);
        continue;
      }
      const bool fresh = told < count && (told == 0 || rng.NextDouble() < 0.5);
      const auto fact = static_cast<size_t>(fresh ? told++ : rng.NextBelow(told));
      const bool ask = !fresh && rng.NextDouble() < stage.question;
      sequence.Add(ask ? phrases_.questions[keys[fact]] : phrases_.facts[keys[fact]],
                   TokenRole::kPlain);
      sequence.Add(phrases_.values[values[fact]], fresh ? TokenRole::kRandom : TokenRole::kAnswer);
      sequence.Add(phrases_.stop, TokenRole::kPlain);
    }
    return sequence;
  }

  Phrases phrases_;
  Ids text_;
  std::vector<NeedleStage> stages_;
  int64_t batch_tokens_;
  size_t stage_ = 0;
  int64_t steps_ = 0;                    // in this stage
  std::vector<int64_t> window_right_;    // [<= kStageWindow] of the last steps
  std::vector<int64_t> window_answers_;  // [<= kStageWindow]
};

bool IsShare(double x) { return x >= 0 && x <= 1; }

void CheckStage(const NeedleStage& s, const std::string& where) {
  const auto most = static_cast<int64_t>(std::min(NeedleKeys().size(), NeedleValues().size()));
  KVC_CHECK(s.length >= 2, kBadInput, "{}: length: expected at least 2, got {}", where, s.length);
  KVC_CHECK(s.batch >= 0, kBadInput, "{}: batch: expected at least 0, got {}", where, s.batch);
  KVC_CHECK(s.words >= 1 && s.words <= most, kBadInput, "{}: words: expected 1 to {}, got {}",
            where, most, s.words);
  KVC_CHECK(s.facts >= 1 && s.facts <= s.words, kBadInput, "{}: facts: expected 1 to {}, got {}",
            where, s.words, s.facts);
  KVC_CHECK(s.motif >= 2, kBadInput, "{}: motif: expected at least 2, got {}", where, s.motif);
  KVC_CHECK(s.motifs >= 1, kBadInput, "{}: motifs: expected at least 1, got {}", where, s.motifs);
  KVC_CHECK(s.filler >= 0, kBadInput, "{}: filler: expected at least 0, got {}", where, s.filler);
  KVC_CHECK(s.piece >= kLeastPieceTokens, kBadInput, "{}: piece: expected at least {}, got {}",
            where, kLeastPieceTokens, s.piece);
  KVC_CHECK(IsShare(s.repeat) && IsShare(s.text) && IsShare(s.repeat + s.text), kBadInput,
            "{}: repeat and text: expected shares whose sum is at most 1, got {} and {}", where,
            s.repeat, s.text);
  KVC_CHECK(IsShare(s.haystack) && s.haystack < 1, kBadInput,
            "{}: haystack: expected a share below 1, got {}", where, s.haystack);
  KVC_CHECK(IsShare(s.question), kBadInput, "{}: question: expected a share, got {}", where,
            s.question);
  KVC_CHECK(s.steps >= 1, kBadInput, "{}: steps: expected at least 1, got {}", where, s.steps);
}

NeedleStage ParseStage(const Json& json, const std::string& where) {
  CheckKeys(json,
            {"length", "batch", "words", "facts", "motif", "motifs", "filler", "repeat", "text",
             "haystack", "piece", "question", "until", "steps"},
            where);
  const NeedleStage standard;
  NeedleStage s;
  s.length = GetInt(json, "length", where, standard.length);
  s.batch = GetInt(json, "batch", where, standard.batch);
  s.words = GetInt(json, "words", where, standard.words);
  s.facts = GetInt(json, "facts", where, standard.facts);
  s.motif = GetInt(json, "motif", where, standard.motif);
  s.motifs = GetInt(json, "motifs", where, standard.motifs);
  s.filler = GetInt(json, "filler", where, standard.filler);
  s.repeat = GetDouble(json, "repeat", where, standard.repeat);
  s.text = GetDouble(json, "text", where, standard.text);
  s.haystack = GetDouble(json, "haystack", where, standard.haystack);
  s.piece = GetInt(json, "piece", where, standard.piece);
  s.question = GetDouble(json, "question", where, standard.question);
  s.until = GetDouble(json, "until", where, standard.until);
  s.steps = GetInt(json, "steps", where, standard.steps);
  CheckStage(s, where);
  return s;
}

}  // namespace

std::vector<NeedleStage> DefaultNeedleStages(int64_t length) {
  const int64_t quarter = std::max<int64_t>(64, length / 4);
  const int64_t half = std::max<int64_t>(64, length / 2);
  const int64_t whole = std::max<int64_t>(64, length);
  // clang-format off
  return {
      {.length = 64, .batch = 16, .motif = 8, .motifs = 4, .repeat = 1.0,
       .until = 0.8, .steps = 6000},
      {.length = 64, .batch = 16, .facts = 4, .motif = 6, .motifs = 4, .repeat = 0.3, .text = 0.1,
       .haystack = 0.1, .piece = 10, .question = 0.1, .until = 0.9, .steps = 3000},
      {.length = 128, .batch = 16, .facts = 6, .motif = 6, .motifs = 6, .repeat = 0.15,
       .text = 0.25, .haystack = 0.3, .piece = 20, .question = 0.4, .until = 0.93, .steps = 1500},
      {.length = quarter, .facts = 8, .motif = 6, .motifs = 8, .repeat = 0.1, .text = 0.3,
       .haystack = 0.4, .piece = 60, .question = 0.6, .until = 0.95, .steps = 1500},
      {.length = half, .facts = 8, .motif = 6, .motifs = 8, .repeat = 0.1, .text = 0.3,
       .haystack = 0.5, .piece = 120, .question = 0.6, .until = 0.97, .steps = 600},
      {.length = whole, .facts = 8, .motif = 6, .motifs = 8, .repeat = 0.1, .text = 0.3,
       .haystack = 0.6, .piece = 200, .question = 0.6},
  };
  // clang-format on
}

std::vector<NeedleStage> ParseNeedleStages(const Json& stages, const std::string& origin) {
  KVC_CHECK(stages.is_array() && !stages.empty(), kBadInput,
            "{}: expected an array of stages, got {}", origin, stages.type_name());
  std::vector<NeedleStage> parsed;
  for (const Json& stage : stages) {
    parsed.push_back(ParseStage(stage, origin + ": stage " + std::to_string(parsed.size() + 1)));
  }
  return parsed;
}

Json ToJson(const std::vector<NeedleStage>& stages) {
  Json json = Json::array();
  for (const NeedleStage& s : stages) {
    json.push_back({{"length", s.length},
                    {"batch", s.batch},
                    {"words", s.words},
                    {"facts", s.facts},
                    {"motif", s.motif},
                    {"motifs", s.motifs},
                    {"filler", s.filler},
                    {"repeat", s.repeat},
                    {"text", s.text},
                    {"haystack", s.haystack},
                    {"piece", s.piece},
                    {"question", s.question},
                    {"until", s.until},
                    {"steps", s.steps}});
  }
  return json;
}

std::unique_ptr<BatchSource> MakeNeedleSource(const Tokenizer& tokenizer,
                                              std::vector<int32_t> text,
                                              std::vector<NeedleStage> stages,
                                              int64_t batch_tokens) {
  KVC_CHECK(!stages.empty(), kInternal, "needle curriculum: expected at least one stage");
  int64_t longest = 0;  // text that some stage takes at once
  for (const NeedleStage& stage : stages) {
    longest = std::max(longest, stage.text > 0 ? stage.length : 0);
    longest = std::max(longest, stage.haystack > 0 ? stage.piece : 0);
  }
  KVC_CHECK(static_cast<int64_t>(text.size()) >= longest, kBadInput,
            "training text: expected at least {} tokens for the curriculum, got {}; pass --text",
            longest, text.size());
  return std::make_unique<NeedleSource>(tokenizer, std::move(text), std::move(stages),
                                        batch_tokens);
}

}  // namespace kvc::model
