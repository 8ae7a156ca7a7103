#pragma once
// The needle task: facts of the form " The magic word for harbor is amber." hidden in a text,
// and a question about one of them. kvc-eval asks it, kvc-train learns it, kvc-profile can measure
// heads with it; all three take words, sentences and placing from here.
//
// A prompt is, in tokens,
//   [bos] haystack with 1 needle and n distractors | " Question: What is the magic word for
//   KEY? Answer: The magic word for KEY is"        -> " VALUE"
// where distractors are needles with other keys and other values. Every piece (a haystack sentence,
// a needle, the question) starts with a space behind a full stop and is encoded as it stands there,
// so that pieces can be joined as token ids and lengths are exact.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/rng.h"
#include "core/tokenizer/tokenizer.h"

namespace kvc {

// Words that needles are made of, without spaces; no word is in both lists.
[[nodiscard]] const std::vector<std::string>& NeedleKeys();
[[nodiscard]] const std::vector<std::string>& NeedleValues();
// " The magic word for KEY is VALUE."
[[nodiscard]] std::string NeedleSentence(std::string_view key, std::string_view value);
// " Question: What is the magic word for KEY? Answer: The magic word for KEY is"
[[nodiscard]] std::string NeedleQuestion(std::string_view key);
// Every piece of the templates and lists, leading space included, that a tokenizer made for the
// task should hold as one token. " KEY is" is one of them: a value next to its key is much easier
// to learn to find.
[[nodiscard]] std::vector<std::string> NeedleWords();

// Ids of `text` as they come behind a full stop: Encode("." + text) without the common start with
// Encode("."). For byte-level tokenizers equal to Encode(text); others put a marker in front of a
// text's first word, which must not stand in the middle of a prompt.
[[nodiscard]] std::vector<int32_t> EncodeContinuation(const Tokenizer& tokenizer,
                                                      std::string_view text);

// What the tokenizer puts in front of a text: [bos] or nothing.
[[nodiscard]] std::vector<int32_t> StartOfText(const Tokenizer& tokenizer);
// `count` different numbers below `bound`, in random order. count <= bound.
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
  // Who measures a compressed cache feeds them behind the compression: the first token of the
  // answer would else be predicted from the cache as it was before.
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
  // Whitespace runs of `haystack` become single spaces and the text is cut into sentences. It is
  // used in a circle when a prompt is longer. Throws kBadInput when there is no sentence.
  NeedleTask(const Tokenizer& tokenizer, std::string_view haystack);

  // The haystack starts at a random sentence and goes on from there; its head is cut to the exact
  // length. The needle lies between two sentences, at that boundary which is nearest to
  // depth x haystack tokens; distractors lie at random boundaries. The same request and generator
  // state give the same prompt. Throws kUsage when `length` has no room for needles, question and
  // a sentence (naming the least length), when depth is outside [0, 1], or for more distractors
  // than there are other keys and values.
  [[nodiscard]] NeedlePrompt Make(const NeedleRequest& request, Rng& rng) const;
  // Sentences of together exactly `tokens` > 0 tokens, from a random one on; the first may be cut.
  [[nodiscard]] std::vector<std::vector<int32_t>> Haystack(int64_t tokens, Rng& rng) const;

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::vector<int32_t>> sentences_;
};

// Does generated text give the value? Leading spaces are skipped and case is ignored; the value
// must be followed by the end of the text or by something other than a letter.
[[nodiscard]] bool NeedleAnswered(std::string_view generated, std::string_view value);

}  // namespace kvc
