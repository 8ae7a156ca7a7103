#include "eval/needle.h"

#include "core/error.h"
#include "core/rng.h"
#include "eval/statistics.h"

namespace kvc::eval {
namespace {

// Tokens decoded beyond the expected answer's length: a model may put a filler word or a quote
// first.
constexpr int64_t kExtraTokens = 4;

// Greedy continuation of one prompt, as text.
std::string Answer(runtime::Session& session,
                   const Tokenizer& tokenizer,
                   const NeedlePrompt& prompt,
                   const NeedleOptions& options,
                   CacheMean& cache) {
  const int64_t vocabulary = session.bundle().manifest().model.vocab_size;
  std::vector<int32_t> prefill = prompt.context;
  std::vector<int32_t> rest = prompt.question;  // fed token by token
  if (options.question_before) {
    prefill.insert(prefill.end(), rest.begin(), rest.end());
    rest.clear();
  }
  const auto answer_tokens = static_cast<int64_t>(prompt.answer.size()) + kExtraTokens;
  runtime::SequenceOptions sequence_options;
  sequence_options.decode = options.policy;
  sequence_options.reserve = static_cast<int64_t>(prefill.size() + rest.size()) + answer_tokens;
  const auto sequence = session.NewSequence(sequence_options);
  std::vector<float> logits(vocabulary);
  const MatrixF row(logits.data(), 1, vocabulary);
  session.Prefill(*sequence, prefill, row);
  runtime::Sequence* const one[] = {sequence.get()};
  for (const int32_t id : rest) session.Decode(one, std::span(&id, 1), row);
  std::vector<int32_t> generated;
  for (int64_t t = 0; t < answer_tokens; ++t) {
    const int32_t id = ArgMax(logits);
    generated.push_back(id);
    if (t + 1 < answer_tokens) session.Decode(one, std::span(&id, 1), row);
  }
  cache.Add(sequence->counters());
  return tokenizer.Decode(generated);
}

}  // namespace

std::vector<NeedleCell> PlanNeedles(const Tokenizer& tokenizer,
                                    const std::string& haystack,
                                    const NeedleOptions& options) {
  const NeedleTask task(tokenizer, haystack);
  Rng rng(options.seed);
  std::vector<NeedleCell> cells;
  for (const int64_t length : options.lengths) {
    for (const double depth : options.depths) {
      NeedleCell cell;
      cell.length = length;
      cell.depth = depth;
      cell.samples = options.samples;
      for (int64_t s = 0; s < options.samples; ++s) {
        cell.prompts.push_back(task.Make({length, depth, options.distractors}, rng));
      }
      cells.push_back(std::move(cell));
    }
  }
  return cells;
}

NeedleResult MeasureNeedles(runtime::Session& session,
                            const Tokenizer& tokenizer,
                            std::vector<NeedleCell> cells,
                            const NeedleOptions& options,
                            Progress& progress) {
  NeedleResult result;
  int64_t total = 0;
  int64_t done = 0;
  int64_t found = 0;
  for (const NeedleCell& cell : cells) total += static_cast<int64_t>(cell.prompts.size());
  for (NeedleCell& cell : cells) {
    int64_t found_here = 0;
    for (const NeedlePrompt& prompt : cell.prompts) {
      const std::string text = Answer(session, tokenizer, prompt, options, result.cache);
      found_here += NeedleAnswered(text, prompt.value) ? 1 : 0;
      progress.Report("needle", ++done, total);
    }
    cell.accuracy = static_cast<double>(found_here) / static_cast<double>(cell.prompts.size());
    found += found_here;
  }
  result.accuracy = total > 0 ? static_cast<double>(found) / static_cast<double>(total) : 0.0;
  result.cells = std::move(cells);
  return result;
}

}  // namespace kvc::eval
