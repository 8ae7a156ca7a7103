#include "chat/plain_lines.h"

#include <iostream>

namespace kvc::chat {
namespace {

class PlainLines : public LineReader {
 public:
  explicit PlainLines(std::string prompt) : prompt_(std::move(prompt)) {}

  std::optional<std::string> Read() override {
    if (!prompt_.empty()) std::cout << prompt_ << std::flush;
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    if (line.ends_with('\r')) line.pop_back();
    return line;
  }

 private:
  std::string prompt_;
};

}  // namespace

std::unique_ptr<LineReader> MakePlainLines(const std::string& prompt) {
  return std::make_unique<PlainLines>(prompt);
}

}  // namespace kvc::chat
