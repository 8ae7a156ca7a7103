#include "eval/compare/logits_files.h"

#include <sstream>

#include "core/base/error.h"
#include "core/cache/manifest.h"
#include "core/io/files.h"

namespace kvc::eval {

namespace fs = std::filesystem;

std::vector<std::vector<int32_t>> ReadIdLines(const fs::path& file) {
  std::istringstream text(ReadFile(file));
  std::vector<std::vector<int32_t>> prompts;
  std::string line;
  while (std::getline(text, line)) {
    std::istringstream words(line);
    std::vector<int32_t> ids;
    int32_t id = 0;
    while (words >> id) ids.push_back(id);
    KVC_CHECK(words.eof(), kBadInput, "{}: line {}: expected token ids, got \"{}\"", file.string(),
              prompts.size() + 1, line);
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

std::vector<WrittenLogits> WriteLogits(runtime::Session& session,
                                       const std::vector<std::vector<int32_t>>& prompts,
                                       const fs::path& out) {
  const Manifest& manifest = session.bundle().manifest();
  const int64_t vocabulary = manifest.model.vocab_size;
  runtime::SequenceOptions options;
  options.cache = FullCache(manifest.cache);
  std::vector<WrittenLogits> written;
  for (size_t p = 0; p < prompts.size(); ++p) {
    const auto tokens = static_cast<int64_t>(prompts[p].size());
    std::vector<float> logits(tokens * vocabulary);  // [T, V]
    const auto sequence = session.NewSequence(options);
    session.Prefill(*sequence, prompts[p], MatrixF(logits.data(), tokens, vocabulary));
    const fs::path name = LogitsFile(out, p);
    WriteNpy(name, logits, {tokens, vocabulary});
    written.push_back({name.string(), tokens});
  }
  return written;
}

}  // namespace kvc::eval
