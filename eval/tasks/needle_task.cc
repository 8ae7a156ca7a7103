#include "eval/tasks/needle_task.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/base/error.h"

namespace kvc {
namespace {

using Ids = std::vector<int32_t>;

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Returns the words of `text`, which whitespace separates.
std::vector<std::string_view> SplitWords(std::string_view text) {
  std::vector<std::string_view> words;
  size_t i = 0;
  while (i < text.size()) {
    const size_t begin = i;
    while (i < text.size() && !IsSpace(text[i])) {
      ++i;
    }
    if (i > begin) {
      words.push_back(text.substr(begin, i - begin));
    }
    ++i;
  }
  return words;
}

// Returns true if a sentence ends with this word: . ! or ?, followed by any closing quotes or
// brackets.
bool EndsSentence(std::string_view word) {
  const size_t last = word.find_last_not_of("'\")]");
  return last != std::string_view::npos && std::string_view(".!?").find(word[last]) < 3;
}

// Returns the sentences of `text`, each with one space before every word.
std::vector<std::string> SplitSentences(std::string_view text) {
  std::vector<std::string> sentences;
  std::string sentence;
  for (const std::string_view word : SplitWords(text)) {
    sentence.append(" ").append(word);
    if (EndsSentence(word)) {
      sentences.push_back(std::exchange(sentence, {}));
    }
  }
  if (!sentence.empty()) {
    sentences.push_back(std::move(sentence));
  }
  return sentences;
}

// Index of the boundary between pieces (0: before the first) nearest to `target` tokens.
size_t NearestBoundary(const std::vector<Ids>& pieces, double target) {
  size_t best = 0;
  double best_distance = target;
  double position = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    position += static_cast<double>(pieces[i].size());
    if (std::abs(position - target) < best_distance) {
      best_distance = std::abs(position - target);
      best = i + 1;
    }
  }
  return best;
}

void Append(Ids& to, const Ids& from) { to.insert(to.end(), from.begin(), from.end()); }

template <class T>
int64_t Size(const std::vector<T>& values) {
  return static_cast<int64_t>(values.size());
}

void CheckRequest(const NeedleRequest& request) {
  const int64_t most = std::min(Size(NeedleKeys()), Size(NeedleValues())) - 1;
  KVC_CHECK(request.distractors >= 0 && request.distractors <= most, kUsage,
            "needle distractors: expected 0 to {}, got {}", most, request.distractors);
  KVC_CHECK(request.depth >= 0 && request.depth <= 1, kUsage,
            "needle depth: expected 0 to 1, got {}", request.depth);
}

// Returns the question without the words that lead into the answer.
std::string AskedQuestion(std::string_view key) {
  return std::string(" Question: What is the magic word for ").append(key).append("?");
}

// Returns question and answer for a key; the context holds what the tokenizer puts before a text.
NeedlePrompt Ask(const Tokenizer& tokenizer, const std::string& key, const std::string& value) {
  NeedlePrompt prompt;
  prompt.key = key;
  prompt.value = value;
  prompt.question = EncodeContinuation(tokenizer, NeedleQuestion(key));
  const Ids asked = EncodeContinuation(tokenizer, AskedQuestion(key));
  const auto common =
      std::mismatch(asked.begin(), asked.end(), prompt.question.begin(), prompt.question.end());
  prompt.lead = prompt.question.end() - common.second;
  const Ids answered = EncodeContinuation(tokenizer, NeedleQuestion(key) + " " + value);
  prompt.answer.assign(answered.begin() + Size(prompt.question), answered.end());
  prompt.context = StartOfText(tokenizer);
  return prompt;
}

// Appends the pieces to the prompt's context, needle i before piece boundaries[i]; needle 0 is the
// asked one.
void Place(const std::vector<Ids>& pieces,
           const std::vector<Ids>& needles,
           const std::vector<size_t>& boundaries,
           NeedlePrompt& prompt) {
  for (size_t piece = 0; piece <= pieces.size(); ++piece) {
    for (size_t i = 0; i < needles.size(); ++i) {
      if (boundaries[i] != piece) {
        continue;
      }
      if (i == 0) {
        prompt.needle_begin = Size(prompt.context);
        prompt.needle_end = prompt.needle_begin + Size(needles[0]);
      }
      Append(prompt.context, needles[i]);
    }
    if (piece < pieces.size()) {
      Append(prompt.context, pieces[piece]);
    }
  }
}

}  // namespace

const std::vector<std::string>& NeedleKeys() {
  static const std::vector<std::string> keys = {
      "acorn",  "badger", "beacon", "bridge", "camel",  "canyon",  "castle", "cedar",
      "comet",  "coral",  "dragon", "eagle",  "falcon", "forest",  "garden", "hammer",
      "harbor", "island", "jacket", "jungle", "ladder", "lantern", "magnet", "meadow",
      "mirror", "orchid", "panda",  "pepper", "rabbit", "ribbon",  "saddle", "temple"};
  return keys;
}

const std::vector<std::string>& NeedleValues() {
  static const std::vector<std::string> values = {
      "amber",  "bronze", "cobalt", "copper",   "crimson", "denim",  "ebony",  "emerald",
      "ginger", "golden", "indigo", "ivory",    "jade",    "lemon",  "lilac",  "mango",
      "maple",  "marble", "mint",   "olive",    "opal",    "orange", "peach",  "pearl",
      "plum",   "ruby",   "rust",   "sapphire", "scarlet", "silver", "velvet", "violet"};
  return values;
}

std::string NeedleSentence(std::string_view key, std::string_view value) {
  return std::string(" The magic word for ").append(key).append(" is ").append(value).append(".");
}

std::string NeedleQuestion(std::string_view key) {
  return AskedQuestion(key).append(" Answer: The magic word for ").append(key).append(" is");
}

std::vector<std::string> NeedleWords() {
  std::vector<std::string> words = {" The",      " magic", " word", " for",   " is",
                                    " Question", " What",  " the",  " Answer"};
  for (const std::string& key : NeedleKeys()) {
    words.push_back(" " + key);
    words.push_back(" " + key + " is");
  }
  for (const std::string& value : NeedleValues()) {
    words.push_back(" " + value);
  }
  return words;
}

std::vector<int32_t> EncodeContinuation(const Tokenizer& tokenizer, std::string_view text) {
  const Ids before = tokenizer.Encode(".", SpecialTokens::kNone);
  const Ids both = tokenizer.Encode(std::string(".").append(text), SpecialTokens::kNone);
  const auto common = std::mismatch(before.begin(), before.end(), both.begin(), both.end());
  return {common.second, both.end()};
}

std::vector<int32_t> StartOfText(const Tokenizer& tokenizer) {
  const Ids ids = tokenizer.Encode(".", SpecialTokens::kAdd);
  const bool starts = tokenizer.bos_id() && !ids.empty() && ids.front() == *tokenizer.bos_id();
  return starts ? Ids{*tokenizer.bos_id()} : Ids{};
}

std::vector<int64_t> SampleDistinct(int64_t count, int64_t bound, Rng& rng) {
  std::vector<int64_t> all(static_cast<size_t>(bound));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t i = 0; i < count; ++i) {
    std::swap(all[static_cast<size_t>(i)], all[static_cast<size_t>(i + rng.NextBelow(bound - i))]);
  }
  all.resize(static_cast<size_t>(count));
  return all;
}

NeedleTask::NeedleTask(const Tokenizer& tokenizer, std::string_view haystack)
    : tokenizer_(tokenizer) {
  for (const std::string& sentence : SplitSentences(haystack)) {
    sentences_.push_back(EncodeContinuation(tokenizer, sentence));
  }
  KVC_CHECK(!sentences_.empty(), kBadInput,
            "haystack: expected at least one sentence, got an empty text; pass another file");
}

std::vector<std::vector<int32_t>> NeedleTask::Haystack(int64_t tokens, Rng& rng) const {
  std::vector<Ids> pieces;
  size_t next = static_cast<size_t>(rng.NextBelow(static_cast<int64_t>(sentences_.size())));
  int64_t count = 0;
  while (count < tokens) {
    pieces.push_back(sentences_[next]);
    count += static_cast<int64_t>(sentences_[next].size());
    next = (next + 1) % sentences_.size();
  }
  // The surplus is cut from the front, so that the text before the question is whole.
  int64_t surplus = count - tokens;
  while (surplus >= Size(pieces.front())) {
    surplus -= Size(pieces.front());
    pieces.erase(pieces.begin());
  }
  pieces.front().erase(pieces.front().begin(), pieces.front().begin() + surplus);
  return pieces;
}

NeedlePrompt NeedleTask::Make(const NeedleRequest& request, Rng& rng) const {
  CheckRequest(request);
  const int64_t num_needles = request.distractors + 1;
  const std::vector<int64_t> keys = SampleDistinct(num_needles, Size(NeedleKeys()), rng);
  const std::vector<int64_t> values = SampleDistinct(num_needles, Size(NeedleValues()), rng);

  NeedlePrompt prompt = Ask(tokenizer_, NeedleKeys()[static_cast<size_t>(keys.front())],
                            NeedleValues()[static_cast<size_t>(values.front())]);
  std::vector<Ids> needles;
  int64_t fixed = Size(prompt.context) + Size(prompt.question);
  for (size_t i = 0; i < keys.size(); ++i) {
    needles.push_back(EncodeContinuation(
        tokenizer_, NeedleSentence(NeedleKeys()[static_cast<size_t>(keys[i])],
                                   NeedleValues()[static_cast<size_t>(values[i])])));
    fixed += Size(needles.back());
  }
  KVC_CHECK(request.length > fixed, kUsage,
            "needle length: expected at least {} tokens for {} needles and the question, got {}",
            fixed + 1, num_needles, request.length);
  const int64_t room = request.length - fixed;
  const std::vector<Ids> pieces = Haystack(room, rng);
  std::vector<size_t> boundaries;  // [needles] the piece that each one precedes
  boundaries.push_back(NearestBoundary(pieces, request.depth * static_cast<double>(room)));
  while (boundaries.size() < needles.size()) {
    boundaries.push_back(static_cast<size_t>(rng.NextBelow(Size(pieces) + 1)));
  }
  Place(pieces, needles, boundaries, prompt);
  return prompt;
}

bool NeedleAnswered(std::string_view generated, std::string_view value) {
  size_t begin = 0;
  while (begin < generated.size() && IsSpace(generated[begin])) {
    ++begin;
  }
  const std::string_view said = generated.substr(begin);
  if (said.size() < value.size()) {
    return false;
  }
  for (size_t i = 0; i < value.size(); ++i) {
    if (Lower(said[i]) != Lower(value[i])) {
      return false;
    }
  }
  return said.size() == value.size() || !IsLetter(said[value.size()]);
}

}  // namespace kvc
