#pragma once
// The needle task: facts of the form " The magic word for harbor is amber." hidden in a text,
// and a question about one of them. kvc-eval asks it, kvc-train learns it, kvc-profile can measure
// heads with it; all three take words, sentences and placing from here.
//
// A prompt is, in tokens,
//   [bos] haystack with 1 needle and n distractors | " Question: What is the magic word for
//   KEY? Answer: The magic word for KEY is"        -> " VALUE"
// where distractors are needles with other keys and other values. Every piece (a haystack sentence,
// a needle, the question) starts with a space after a full stop and is encoded as it occurs there,
// so pieces can be joined as token ids and lengths are exact.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/rng.h"
#include "core/tokenizer/tokenizer.h"

namespace kvc {

// Return the words that needles are made of, without spaces; no word is in both lists.
[[nodiscard]] const std::vector<std::string>& NeedleKeys();
[[nodiscard]] const std::vector<std::string>& NeedleValues();
// Returns " The magic word for KEY is VALUE."
[[nodiscard]] std::string NeedleSentence(std::string_view key, std::string_view value);
// Returns " Question: What is the magic word for KEY? Answer: The magic word for KEY is"
[[nodiscard]] std::string NeedleQuestion(std::string_view key);
// Returns every piece of the templates and lists, leading space included, that a tokenizer made for
// the task should hold as one token. " KEY is" is one of them: a value next to its key is much
// easier to learn to find.
[[nodiscard]] std::vector<std::string> NeedleWords();

// Returns the ids of `text` after a full stop: Encode("." + text) without the common start with
// Encode("."). For byte-level tokenizers they equal Encode(text); others put a marker before a
// text's first word, which must not occur in the middle of a prompt.
[[nodiscard]] std::vector<int32_t> EncodeContinuation(const Tokenizer& tokenizer,
                                                      std::string_view text);

// Returns what the tokenizer puts before a text: [bos] or nothing.
[[nodiscard]] std::vector<int32_t> StartOfText(const Tokenizer& tokenizer);
// Returns `count` different numbers below `bound`, in random order. count <= bound.
[[nodiscard]] std::vector<int64_t> SampleDistinct(int64_t count, int64_t bound, Rng& rng);

struct NeedleRequest {
  int64_t length = 1024;  // tokens of context and question together, bos included
  double depth = 0.5;     // of the asked needle in the haystack: 0 start, 1 end
  int64_t distractors = 0;
};

struct NeedlePrompt {
  std::vector<int32_t> context;   // [bos] and haystack with needle and distractors
  std::vector<int32_t> question;  // context.size() + question.size() == length
  // Tokens at the question's end that lead into the answer: " Answer: The magic word for KEY is".
  // Measurements of a compressed cache feed them after the compression; otherwise the first token
  // of the answer would be predicted from the uncompressed cache.
  int64_t lead = 0;
  std::vector<int32_t> answer;  // ids of " VALUE"
  std::string key;
  std::string value;
  int64_t needle_begin = 0;  // the asked needle is context[needle_begin, needle_end)
  int64_t needle_end = 0;
};

// Makes prompts from one haystack text. Keeps the encoded sentences; borrows the tokenizer.
class NeedleTask {
 public:
  // Turns runs of whitespace in `haystack` into single spaces and cuts the text into sentences. The
  // text is repeated when a prompt is longer. Throws kBadInput when there is no sentence.
  NeedleTask(const Tokenizer& tokenizer, std::string_view haystack);

  // Makes a prompt. The haystack starts at a random sentence and continues from there; its head is
  // cut to the exact length. The needle lies between two sentences, at the boundary nearest to
  // depth x haystack tokens; distractors lie at random boundaries. The same request and generator
  // state give the same prompt. Throws kUsage when `length` has no room for needles, question and a
  // sentence (naming the least length), when depth is outside [0, 1], or for more distractors than
  // there are other keys and values.
  [[nodiscard]] NeedlePrompt Make(const NeedleRequest& request, Rng& rng) const;
  // Returns sentences of exactly `tokens` > 0 tokens in total, from a random one on; the first may
  // be cut.
  [[nodiscard]] std::vector<std::vector<int32_t>> Haystack(int64_t tokens, Rng& rng) const;

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::vector<int32_t>> sentences_;
};

// Tells whether generated text gives the value. Leading spaces are skipped and case is ignored; the
// value must be followed by the end of the text or by something other than a letter.
[[nodiscard]] bool NeedleAnswered(std::string_view generated, std::string_view value);

}  // namespace kvc
