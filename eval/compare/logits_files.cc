#include "eval/compare/logits_files.h"

#include <span>
#include <sstream>

#include "core/base/error.h"
#include "core/base/error_place.h"
#include "core/cache/manifest.h"
#include "core/checkpoint/model_config.h"
#include "core/io/files.h"
#include "runtime/generator.h"

namespace kvc::eval {

namespace fs = std::filesystem;

std::vector<std::vector<int32_t>> ReadIdLines(const fs::path& file) {
  std::istringstream text(ReadFile(file));
  std::vector<std::vector<int32_t>> prompts;
  std::string line;
  for (int64_t number = 1; std::getline(text, line); ++number) {
    std::istringstream words(line);
    std::vector<int32_t> ids;
    int32_t id = 0;
    while (words >> id) ids.push_back(id);
    KVC_CHECK(words.eof(), kBadInput, "{}: line {}: expected token ids, got \"{}\"", file.string(),
              number, line);
    if (!ids.empty()) prompts.push_back(std::move(ids));
  }
  KVC_CHECK(!prompts.empty(), kBadInput, "{}: expected lines of token ids, got none",
            file.string());
  return prompts;
}

fs::path LogitsFile(const fs::path& out, size_t prompt) {
  if (prompt == 0) return out;
  fs::path name = out;
  name.replace_extension(std::to_string(prompt) + out.extension().string());
  return name;
}

namespace {

void CheckPrompts(const std::vector<std::vector<int32_t>>& prompts,
                  int64_t context,
                  const ModelConfig& model) {
  runtime::CheckPromptLengths(prompts, model.context_length);
  for (size_t p = 0; p < prompts.size(); ++p) {
    KVC_CHECK(context == 0 || std::ssize(prompts[p]) > context, kUsage,
              "prompt {}: expected more tokens than the {} of --context, got {}", p + 1, context,
              prompts[p].size());
    for (const int32_t id : prompts[p]) {
      KVC_CHECK(id >= 0 && id < model.vocab_size, kBadInput,
                "prompt {}: expected ids below {}, got {}", p + 1, model.vocab_size, id);
    }
  }
}

// Logits [T, V] of all ids; those from `context` on are decoded.
void FindLogits(runtime::Session& session,
                runtime::Sequence& sequence,
                std::span<const int32_t> ids,
                int64_t context,
                MatrixF logits) {
  session.Prefill(sequence, ids.first(static_cast<size_t>(context)), logits.RowRange(0, context));
  runtime::Sequence* const one[] = {&sequence};
  for (int64_t t = context; t < logits.rows; ++t) {
    session.Decode(one, ids.subspan(static_cast<size_t>(t), 1), logits.RowRange(t, 1));
  }
}

}  // namespace

std::vector<WrittenLogits> WriteLogits(runtime::Session& session,
                                       const std::vector<std::vector<int32_t>>& prompts,
                                       const fs::path& out,
                                       int64_t context,
                                       const Ranks& ranks) {
  const Manifest& manifest = session.bundle().manifest();
  const int64_t vocabulary = manifest.model.vocab_size;
  runtime::SequenceOptions options;
  if (context == 0) options.cache = FullCache(manifest.cache);
  CheckPrompts(prompts, context, manifest.model);  // before the first file is written
  std::vector<WrittenLogits> written;
  for (size_t p = 0; p < prompts.size(); ++p) {
    const auto tokens = static_cast<int64_t>(prompts[p].size());
    const fs::path name = LogitsFile(out, p);
    written.push_back({name.string(), tokens});
    if (!ranks.Owns(static_cast<int64_t>(p))) continue;
    std::vector<float> logits(tokens * vocabulary);  // [T, V]
    const auto sequence = session.NewSequence(options);
    AtPlace("prompt " + std::to_string(p + 1), [&] {
      FindLogits(session, *sequence, prompts[p], context > 0 ? context : tokens,
                 MatrixF(logits.data(), tokens, vocabulary));
    });
    WriteNpy(name, logits, {tokens, vocabulary});
  }
  return written;
}

}  // namespace kvc::eval
