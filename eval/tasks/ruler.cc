#include "eval/tasks/ruler.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "eval/tasks/needle_task.h"

namespace kvc::eval {
namespace {

using Ids = std::vector<int32_t>;
using Pieces = std::vector<Ids>;

constexpr int64_t kFacts = 4;           // of multi-key, multi-value and multi-query
constexpr int64_t kVariables = 5;       // of tracking
constexpr int64_t kCommonWords = 10;    // asked words
constexpr int64_t kFrequentWords = 3;   // asked words
constexpr int64_t kCodedWords = 50;     // that a coded text is made of
constexpr int64_t kCommonPerRare = 10;  // how much more often a common word occurs than others

void Append(const Ids& from, Ids& to) { to.insert(to.end(), from.begin(), from.end()); }

int64_t TokensIn(const Pieces& pieces) {
  return std::accumulate(pieces.begin(), pieces.end(), int64_t{0},
                         [](int64_t sum, const Ids& ids) { return sum + std::ssize(ids); });
}

// "a", "a and b", "a, b and c"
std::string Enumerate(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " and " : ", ";
    text += words[i];
  }
  return text;
}

std::vector<std::string> RandomWords(int64_t count, int64_t letters, char first, Rng& rng) {
  std::vector<std::string> words;
  while (std::ssize(words) < count) {
    std::string word;
    for (int64_t i = 0; i < letters; ++i) word += static_cast<char>(first + rng.NextBelow(26));
    if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
  }
  return words;
}

// Seven digits, as RULER's numbers are.
std::string RandomNumber(Rng& rng) { return std::to_string(1000000 + rng.NextBelow(9000000)); }

// Different words of `text`: 4 to 9 small letters, in the order in which they come first.
std::vector<std::string> WordsOf(std::string_view text) {
  std::vector<std::string> words;
  std::set<std::string, std::less<>> seen;
  size_t begin = 0;
  const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
  while (begin < text.size()) {
    size_t end = begin;
    while (end < text.size() && text[end] != ' ' && text[end] != '\n') ++end;
    const std::string_view word = text.substr(begin, end - begin);
    if (word.size() >= 4 && word.size() <= 9 && std::all_of(word.begin(), word.end(), letter) &&
        seen.emplace(word).second) {
      words.emplace_back(word);
    }
    begin = end + 1;
  }
  return words;
}

class Generator {
 public:
  Generator(const Tokenizer& tokenizer, const std::string& haystack)
      : tokenizer_(tokenizer), haystack_(tokenizer, haystack), words_(WordsOf(haystack)) {}

  TaskPrompt Make(const std::string& task, int64_t length, Rng& rng) const {
    if (task == "tracking") return Tracking(length, rng);
    if (task == "common-words") return CommonWords(length, rng);
    if (task == "frequent-words") return FrequentWords(length, rng);
    return Facts(task, length, rng);
  }

 private:
  [[nodiscard]] Ids Encode(const std::string& text) const {
    return EncodeContinuation(tokenizer_, text);
  }

  // A prompt without its context's text.
  [[nodiscard]] TaskPrompt Ask(const std::string& task,
                               const std::string& question,
                               const std::string& answer_start,
                               const std::vector<std::string>& expected) const {
    TaskPrompt prompt;
    prompt.task = task;
    prompt.asked.context = StartOfText(tokenizer_);
    prompt.asked.question = Encode(" Question: " + question);
    const Ids lead = Encode(" Answer: " + answer_start);
    prompt.asked.lead = std::ssize(lead);
    Append(lead, prompt.asked.question);
    // The limit is half more than the answer itself, and a few words.
    const int64_t tokens = std::ssize(Encode(" " + Enumerate(expected)));
    prompt.asked.answer_tokens = tokens + tokens / 2 + 8;
    prompt.score = [expected](const std::string& text) { return Recall(text, expected); };
    return prompt;
  }

  // Returns the tokens for the context's text.
  [[nodiscard]] static int64_t RoomIn(const TaskPrompt& prompt, int64_t length, int64_t least) {
    const int64_t fixed = std::ssize(prompt.asked.context) + std::ssize(prompt.asked.question) +
                          prompt.asked.answer_tokens;
    KVC_CHECK(length >= fixed + least, kUsage, "--lengths: {}: expected at least {} tokens, got {}",
              prompt.task, fixed + least, length);
    return length - fixed;
  }

  // Hides the sentences in text at random boundaries, in their order; fills the length.
  void Hide(const std::vector<std::string>& sentences,
            int64_t length,
            Rng& rng,
            TaskPrompt& prompt) const {
    Pieces facts;
    for (const std::string& sentence : sentences) facts.push_back(Encode(sentence));
    const int64_t room = RoomIn(prompt, length, TokensIn(facts) + 1) - TokensIn(facts);
    const Pieces text = haystack_.Haystack(room, rng);
    std::vector<int64_t> boundaries;
    for (size_t i = 0; i < facts.size(); ++i) {
      boundaries.push_back(rng.NextBelow(std::ssize(text) + 1));
    }
    std::sort(boundaries.begin(), boundaries.end());
    size_t next = 0;
    for (int64_t piece = 0; piece <= std::ssize(text); ++piece) {
      while (next < facts.size() && boundaries[next] == piece) {
        Append(facts[next++], prompt.asked.context);
      }
      if (piece < std::ssize(text)) Append(text[piece], prompt.asked.context);
    }
  }

  // Makes prompts of single, multi-key, multi-value and multi-query.
  [[nodiscard]] TaskPrompt Facts(const std::string& task, int64_t length, Rng& rng) const {
    const int64_t count = task == "single" ? 1 : kFacts;
    const bool one_key = task == "multi-value";
    std::vector<std::string> keys, numbers, sentences;
    for (const int64_t key : SampleDistinct(count, std::ssize(NeedleKeys()), rng)) {
      keys.push_back(one_key && !keys.empty() ? keys[0] : NeedleKeys()[key]);
      numbers.push_back(RandomNumber(rng));
      sentences.push_back((one_key ? " One secret number for " : " The secret number for ") +
                          keys.back() + " is " + numbers.back() + ".");
    }
    if (task == "multi-value" || task == "multi-query") {
      if (one_key) keys.resize(1);
      const std::string asked = "secret numbers for " + Enumerate(keys);
      TaskPrompt prompt =
          Ask(task, "What are all the " + asked + "?", "The " + asked + " are", numbers);
      Shuffle(rng, sentences);
      Hide(sentences, length, rng, prompt);
      return prompt;
    }
    const std::string asked = "secret number for " + keys[0] + " is";
    TaskPrompt prompt =
        Ask(task, "What is the secret number for " + keys[0] + "?", "The " + asked, {numbers[0]});
    Shuffle(rng, sentences);
    Hide(sentences, length, rng, prompt);
    return prompt;
  }

  [[nodiscard]] TaskPrompt Tracking(int64_t length, Rng& rng) const {
    const std::vector<std::string> names = RandomWords(kVariables, 5, 'A', rng);
    const std::string number = std::to_string(10000 + rng.NextBelow(90000));
    std::vector<std::string> sentences = {" VAR " + names[0] + " = " + number + "."};
    for (size_t i = 1; i < names.size(); ++i) {
      sentences.push_back(" VAR " + names[i] + " = VAR " + names[i - 1] + ".");
    }
    TaskPrompt prompt = Ask("tracking", "Which variables hold the number " + number + "?",
                            "The variables that hold " + number + " are", names);
    Hide(sentences, length, rng, prompt);
    return prompt;
  }

  // Returns the tokens of a numbered list of these entries, whatever their order.
  [[nodiscard]] int64_t ListTokens(int64_t entries, const Pieces& words, int64_t repeats) const {
    while (std::ssize(number_tokens_) <= entries) {
      const std::string number = " " + std::to_string(number_tokens_.size()) + ".";
      number_tokens_.push_back(
          number_tokens_.empty() ? 0 : number_tokens_.back() + std::ssize(Encode(number)));
    }
    return number_tokens_[entries] + repeats * TokensIn(words);
  }

  // Returns how often common words and others occur in a list of `room` tokens. Common words fill
  // at most half of it. RULER repeats them 30 times in long lists and the others 3 times, in short
  // ones 10 times and once.
  [[nodiscard]] std::pair<int64_t, int64_t> RepeatsIn(int64_t room, const Pieces& common) const {
    const auto fits = [&](int64_t repeats) {
      return ListTokens(repeats * kCommonWords, common, repeats) <= room / 2;
    };
    constexpr int64_t kRareRepeats = 3;
    if (fits(kRareRepeats * kCommonPerRare)) return {kRareRepeats * kCommonPerRare, kRareRepeats};
    int64_t repeats = kCommonPerRare;
    while (repeats > 2 && !fits(repeats)) --repeats;
    return {repeats, 1};
  }

  [[nodiscard]] TaskPrompt CommonWords(int64_t length, Rng& rng) const {
    KVC_CHECK(std::ssize(words_) >= 4 * kCommonWords, kBadInput,
              "haystack: expected at least {} different words of 4 to 9 small letters for "
              "common-words, got {}; pass a longer text",
              4 * kCommonWords, words_.size());
    std::vector<std::string> words;
    for (const int64_t i : SampleDistinct(std::ssize(words_), std::ssize(words_), rng)) {
      words.push_back(words_[i]);
    }
    const std::vector<std::string> common(words.begin(), words.begin() + kCommonWords);
    TaskPrompt prompt = Ask("common-words", "Which ten words are most common in the list?",
                            "The ten most common words are", common);
    Pieces ids;
    for (const std::string& word : common) ids.push_back(Encode(" " + word));
    const int64_t room = RoomIn(prompt, length, 2 * ListTokens(2 * kCommonWords, ids, 2));
    const auto [repeats, rare_repeats] = RepeatsIn(room, ids);
    Pieces entries;
    for (int64_t r = 0; r < repeats; ++r) entries.insert(entries.end(), ids.begin(), ids.end());
    int64_t word_tokens = repeats * TokensIn(ids);
    for (size_t next = kCommonWords; next < words.size(); ++next) {
      const Ids word = Encode(" " + words[next]);
      word_tokens += rare_repeats * std::ssize(word);
      if (ListTokens(std::ssize(entries) + rare_repeats, {}, 0) + word_tokens > room) break;
      entries.insert(entries.end(), rare_repeats, word);
    }
    Shuffle(rng, entries);
    for (size_t i = 0; i < entries.size(); ++i) {
      Append(Encode(" " + std::to_string(i + 1) + "."), prompt.asked.context);
      Append(entries[i], prompt.asked.context);
    }
    return prompt;
  }

  [[nodiscard]] TaskPrompt FrequentWords(int64_t length, Rng& rng) const {
    const std::vector<std::string> words = RandomWords(kCodedWords, 6, 'a', rng);
    const std::vector<std::string> expected(words.begin(), words.begin() + kFrequentWords);
    TaskPrompt prompt =
        Ask("frequent-words", "Which three words are most frequent in the coded text?",
            "The three most frequent words are", expected);
    Pieces word_ids;
    for (const std::string& word : words) word_ids.push_back(Encode(" " + word));
    const int64_t room = RoomIn(prompt, length, 40 * std::ssize(word_ids[0]));
    // Word k = 1, 2, ... occurs scale / k^2 times.
    const auto text_of = [&](int64_t scale) {
      Pieces text;
      for (int64_t k = 1; k <= kCodedWords; ++k) {
        text.insert(text.end(), scale / (k * k), word_ids[k - 1]);
      }
      return text;
    };
    int64_t scale = 1;
    while (TokensIn(text_of(scale + 1)) <= room) ++scale;
    Pieces text = text_of(scale);
    Shuffle(rng, text);
    for (const Ids& word : text) Append(word, prompt.asked.context);
    return prompt;
  }

  const Tokenizer& tokenizer_;
  NeedleTask haystack_;
  std::vector<std::string> words_;
  mutable std::vector<int64_t> number_tokens_;  // of " 1. 2. ... i." together, as far as requested
};

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

const std::vector<std::string>& RulerTasks() {
  static const std::vector<std::string> tasks = {"single",        "multi-key", "multi-value",
                                                 "multi-query",   "tracking",  "common-words",
                                                 "frequent-words"};
  return tasks;
}

std::vector<TaskPrompt> PlanRuler(const Tokenizer& tokenizer,
                                  const std::string& haystack,
                                  const RulerOptions& options) {
  const auto& known = RulerTasks();
  const Generator generator(tokenizer, haystack);
  std::vector<TaskPrompt> prompts;
  for (const int64_t length : options.lengths) {
    for (const std::string& task : options.tasks) {
      const auto at = std::find(known.begin(), known.end(), task);
      KVC_CHECK(at != known.end(), kUsage, "--tasks: expected some of {}, got \"{}\"",
                Enumerate(known), task);
      // Every task and length has a random stream of its own.
      const auto index = static_cast<uint64_t>(at - known.begin());
      Rng rng(options.seed + (index << 32) + (static_cast<uint64_t>(length) << 40));
      for (int64_t s = 0; s < options.samples; ++s) {
        prompts.push_back(generator.Make(task, length, rng));
        prompts.back().length = length;
      }
    }
  }
  return prompts;
}

double Recall(std::string_view text, const std::vector<std::string>& expected) {
  const auto same = [](char a, char b) { return Lower(a) == Lower(b); };
  int64_t found = 0;
  for (const std::string& word : expected) {
    found += std::search(text.begin(), text.end(), word.begin(), word.end(), same) != text.end();
  }
  return static_cast<double>(found) / static_cast<double>(expected.size());
}

}  // namespace kvc::eval
