#include "factorize/calibration_text.h"

#include <algorithm>
#include <string>

#include "core/base/error.h"
#include "core/io/text_input.h"

namespace kvc::factorize {
namespace {

using Ids = std::vector<int32_t>;

// Tokens of each document in turn, no special tokens.
Ids Encode(const Tokenizer& tokenizer, const std::vector<std::filesystem::path>& files) {
  Ids ids;
  for (const auto& file : files) {
    for (const std::string& document : ReadDocuments(file)) {
      const Ids part = tokenizer.Encode(document, SpecialTokens::kNone);
      ids.insert(ids.end(), part.begin(), part.end());
    }
  }
  return ids;
}

void CutCalibration(const Ids& ids,
                    const TextRequest& request,
                    CalibrationText& text,
                    std::vector<int64_t>& held_begins) {
  const auto found = static_cast<int64_t>(ids.size());
  const int64_t wanted = std::max<int64_t>(1, request.calibration / request.window);
  const int64_t count = std::min(wanted + request.held_back, found / request.window);
  const int64_t held = count > wanted ? count - wanted : count / 8;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = i * found / count;
    const bool held_here = (i + 1) * held / count > i * held / count;
    if (held_here) held_begins.push_back(begin);
    (held_here ? text.held_back : text.calibration)
        .emplace_back(ids.begin() + begin, ids.begin() + begin + request.window);
  }
}

// Returns the beginnings of whole windows in the gaps between the held-back ones.
std::vector<int64_t> FreeBegins(int64_t found,
                                int64_t window,
                                const std::vector<int64_t>& held_begins) {
  std::vector<int64_t> begins;
  int64_t at = 0;
  const auto fill = [&](int64_t end) {
    for (; at + window <= end; at += window) begins.push_back(at);
  };
  for (const int64_t held : held_begins) {
    fill(held);
    at = held + window;
  }
  fill(found);
  return begins;
}

void CutTuning(const Ids& ids,
               const TextRequest& request,
               const std::vector<int64_t>& held_begins,
               CalibrationText& text) {
  const auto begins = FreeBegins(static_cast<int64_t>(ids.size()), request.window, held_begins);
  const auto found = static_cast<int64_t>(begins.size());
  const int64_t wanted = request.tuning / request.window;
  KVC_CHECK(wanted >= 2, kUsage,
            "--tune-tokens: expected at least two windows of {} tokens, got {}", request.window,
            request.tuning);
  KVC_CHECK(found >= wanted, kBadInput,
            "--calib: expected text for {} tokens of tuning beside the windows held back, got {}; "
            "give more text or lower --tune-tokens",
            wanted * request.window, found * request.window);
  for (int64_t i = 0; i < 2 * wanted; ++i) {
    const int64_t begin = begins[i * found / (2 * wanted)];
    (i % 2 == 0 ? text.tuning : text.global_tuning)
        .emplace_back(ids.begin() + begin, ids.begin() + begin + request.window);
  }
}

}  // namespace

CalibrationText CutText(const Tokenizer& tokenizer, const TextRequest& request) {
  const Ids ids = Encode(tokenizer, request.files);
  KVC_CHECK(static_cast<int64_t>(ids.size()) >= request.window, kBadInput,
            "--calib: expected at least {} tokens for one window, got {}; give more text or a "
            "shorter --window",
            request.window, ids.size());
  CalibrationText text;
  std::vector<int64_t> held_begins;
  CutCalibration(ids, request, text, held_begins);
  if (request.tuning > 0) CutTuning(ids, request, held_begins, text);
  return text;
}

}  // namespace kvc::factorize
