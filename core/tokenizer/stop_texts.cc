#include "core/tokenizer/stop_texts.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"

namespace kvc {

StopTexts::StopTexts(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    KVC_CHECK(!stop.empty(), kUsage, "stop: expected a text, got an empty one");
  }
}

std::string StopTexts::Push(std::string_view piece) {
  if (found_) return {};
  held_ += piece;
  size_t end = std::string::npos;    // of the stop text that is complete first
  size_t first = std::string::npos;  // its beginning
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos || std::pair(at + stop.size(), at) >= std::pair(end, first))
      continue;
    end = at + stop.size();
    first = at;
  }
  if (first != std::string::npos) {
    found_ = true;
    held_.resize(first);
    return std::exchange(held_, {});
  }
  size_t kept = 0;  // bytes at the end with which a stop text begins
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > kept; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) kept = n;
    }
  }
  std::string certain = held_.substr(0, held_.size() - kept);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopTexts::Finish() { return std::exchange(held_, {}); }

}  // namespace kvc
