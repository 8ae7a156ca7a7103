#include "model/windows.h"

#include "core/base/error.h"

namespace kvc::model {

std::vector<std::vector<int32_t>> CutWindows(const Tokenizer& tokenizer,
                                             const std::vector<std::string>& documents,
                                             int64_t count,
                                             int64_t length) {
  KVC_CHECK(count >= 1 && length >= 1, kUsage,
            "windows: expected at least one of at least one token, got {} of {}", count, length);
  std::vector<int32_t> ids;
  for (const std::string& document : documents) {
    const std::vector<int32_t> part = tokenizer.Encode(document, SpecialTokens::kNone);
    ids.insert(ids.end(), part.begin(), part.end());
  }
  const auto found = static_cast<int64_t>(ids.size());
  KVC_CHECK(found >= length, kBadInput,
            "text: expected at least {} tokens for one window, got {}; give more text or a shorter "
            "window",
            length, found);
  count = std::min(count, found / length);
  std::vector<std::vector<int32_t>> windows;
  for (int64_t i = 0; i < count; ++i) {
    const auto begin = ids.begin() + i * found / count;
    windows.emplace_back(begin, begin + length);
  }
  return windows;
}

}  // namespace kvc::model
