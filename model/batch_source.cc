#include "model/batch_source.h"

#include <utility>

#include "core/base/error.h"
#include "core/io/json.h"

namespace kvc::model {
namespace {

class TextSource : public BatchSource {
 public:
  TextSource(std::vector<int32_t> ids, int64_t batch, int64_t length)
      : ids_(std::move(ids)), batch_(batch), length_(length) {}

  TrainBatch Next(Rng& rng) override {
    TrainBatch batch{batch_, length_, {}, std::vector<TokenRole>(batch_ * length_)};
    const int64_t starts = static_cast<int64_t>(ids_.size()) - length_ + 1;
    for (int64_t n = 0; n < batch_; ++n) {
      const auto first = ids_.begin() + rng.NextBelow(starts);
      batch.ids.insert(batch.ids.end(), first, first + length_);
    }
    return batch;
  }
  void Observe(int64_t, int64_t) override {}
  [[nodiscard]] std::string Describe() const override { return "text"; }
  [[nodiscard]] Json State() const override { return Json::object(); }
  void Restore(const Json&) override {}

 private:
  std::vector<int32_t> ids_;
  int64_t batch_;
  int64_t length_;
};

}  // namespace

RoleCounts CountRoles(const TrainBatch& batch) {
  RoleCounts counts;
  for (int64_t i = 0; i < static_cast<int64_t>(batch.roles.size()); ++i) {
    if (i % batch.length == 0) {
      continue;  // nothing predicts a sequence's first token
    }
    const TokenRole role = batch.roles[static_cast<size_t>(i)];
    counts.learned += role != TokenRole::kRandom ? 1 : 0;
    counts.answers += role == TokenRole::kAnswer ? 1 : 0;
  }
  return counts;
}

std::vector<int32_t> EncodeDocuments(const Tokenizer& tokenizer,
                                     const std::vector<std::string>& documents,
                                     int64_t length) {
  std::vector<int32_t> ids;
  for (const std::string& document : documents) {
    const std::vector<int32_t> part = tokenizer.Encode(document, SpecialTokens::kNone);
    ids.insert(ids.end(), part.begin(), part.end());
    if (tokenizer.eos_id()) {
      ids.push_back(*tokenizer.eos_id());
    }
  }
  KVC_CHECK(static_cast<int64_t>(ids.size()) >= length, kBadInput,
            "training text: expected at least one window of {} tokens, got {}; pass more text or "
            "lower --length",
            length, ids.size());
  return ids;
}

std::unique_ptr<BatchSource> MakeTextSource(std::vector<int32_t> ids,
                                            int64_t batch,
                                            int64_t length) {
  KVC_CHECK(length >= 2 && static_cast<int64_t>(ids.size()) >= length, kBadInput,
            "training text: expected a window of at least 2 tokens and as many ids, got a window "
            "of {} and {} ids",
            length, ids.size());
  return std::make_unique<TextSource>(std::move(ids), batch, length);
}

}  // namespace kvc::model
