#include "core/tokenizer/normalize.h"

#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/tokenizer/components.h"
#include "core/tokenizer/regex.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

class Chain final : public Normalizer {
 public:
  explicit Chain(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  [[nodiscard]] std::string Apply(std::string text) const override {
    for (const auto& step : steps_) text = step->Apply(std::move(text));
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  [[nodiscard]] std::string Apply(std::string text) const override {
    return text.empty() ? text : prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  [[nodiscard]] std::string Apply(std::string text) const override {
    return RegexScanner(pattern_).ReplaceAll(text, content_);
  }

 private:
  Regex pattern_;
  std::string content_;
};

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  [[nodiscard]] std::string Apply(std::string text) const override {
    return NormalizeUnicode(text, form_);
  }

 private:
  NormalForm form_;
};

std::unique_ptr<Normalizer> ParseOne(const Json& json,
                                     const std::string& type,
                                     const std::string& origin) {
  if (type == "Prepend") return std::make_unique<Prepend>(GetString(json, "prepend", origin));
  if (type == "Replace") {
    return std::make_unique<Replace>(ParsePattern(json, origin),
                                     GetString(json, "content", origin));
  }
  if (type == "NFC") return std::make_unique<UnicodeForm>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<UnicodeForm>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(NormalForm::kNfkd);
  KVC_THROW(kUnsupported, "{}: normalizer \"{}\" is not supported", origin, type);
}

}  // namespace

std::unique_ptr<Normalizer> ParseNormalizer(const Json& json, const std::string& origin) {
  if (json.is_null()) return nullptr;
  return std::make_unique<Chain>(ParseComponents<Normalizer>(
      json, "normalizers", origin, [&](const Json& component, const std::string& type) {
        return ParseOne(component, type, origin);
      }));
}

}  // namespace kvc::tokenizer
