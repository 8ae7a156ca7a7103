#include "core/tokenizer/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

constexpr double kUnknownPenalty = 10.0;

TokenList Numbered(const ScoredTokens& tokens) {
  TokenList list;
  list.reserve(tokens.size());
  for (const auto& [token, score] : tokens) {
    list.emplace_back(token, static_cast<int64_t>(list.size()));
  }
  return list;
}

}  // namespace

UnigramModel::UnigramModel(ScoredTokens tokens,
                           const UnigramOptions& options,
                           const std::string& origin)
    : vocabulary_(Numbered(tokens), origin), origin_(origin) {
  const auto size = static_cast<int64_t>(tokens.size());
  KVC_CHECK(!options.unk_id || (*options.unk_id >= 0 && *options.unk_id < size), kBadInput,
            "{}: unk_id: expected one of {} tokens, got {}", origin, size, *options.unk_id);
  unk_id_ = static_cast<int32_t>(options.unk_id.value_or(-1));
  double lowest = std::numeric_limits<double>::infinity();
  scores_.reserve(tokens.size());
  for (const auto& [token, score] : tokens) {
    KVC_CHECK(std::isfinite(score), kBadInput,
              "{}: score of \"{}\": expected a finite number, got {}", origin, token, score);
    trie_.Add(token, static_cast<int32_t>(scores_.size()));
    scores_.push_back(score);
    lowest = std::min(lowest, score);
  }
  unk_score_ = lowest - kUnknownPenalty;
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    byte_ids_[byte] =
        options.byte_fallback ? vocabulary_.Id(ByteToken(static_cast<uint8_t>(byte))) : -1;
  }
}

class UnigramEncoder final : public Encoder {
 public:
  explicit UnigramEncoder(const UnigramModel& model) : model_(model) {}

  void Append(std::string_view word, std::vector<int32_t>& ids) override {
    FindBestPath(word);
    // Backwards from the end; a run of unknown characters is one part.
    parts_.clear();
    for (size_t end = word.size(); end > 0;) {
      const Node& node = nodes_[end];
      const auto begin = static_cast<size_t>(node.begin);
      const bool unknown = node.id == model_.unk_id_;
      if (unknown && !parts_.empty() && parts_.back().unknown) {
        parts_.back().begin = begin;
      } else {
        parts_.push_back({begin, end, node.id, unknown});
      }
      end = begin;
    }
    for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) {
      if (part->unknown) {
        AppendUnknown(word.substr(part->begin, part->end - part->begin), ids);
      } else {
        ids.push_back(part->id);
      }
    }
  }

 private:
  // The best path to a place in the word: its last token, and where that begins.
  struct Node {
    double score = 0.0;
    int32_t begin = -1;  // -1: no path leads here
    int32_t id = -1;
  };
  struct Part {
    size_t begin = 0;
    size_t end = 0;
    int32_t id = -1;
    bool unknown = false;
  };

  void FindBestPath(std::string_view word) {
    nodes_.assign(word.size() + 1, Node{});
    for (size_t begin = 0; begin < word.size();) {
      const double score = nodes_[begin].score;
      const size_t character = CharacterBytes(word[begin]);
      bool is_token = false;
      const auto offer = [&](size_t length, double candidate, int32_t id) {
        Node& node = nodes_[begin + length];
        if (node.begin >= 0 && candidate <= node.score) return;
        node = {candidate, static_cast<int32_t>(begin), id};
      };
      model_.trie_.ForEachPrefix(word.substr(begin), [&](int32_t id, size_t length) {
        offer(length, score + model_.scores_[static_cast<size_t>(id)], id);
        is_token = is_token || length == character;
      });
      if (!is_token) {
        KVC_CHECK(model_.unk_id_ >= 0, kBadInput,
                  "{}: expected a token for every character of the text, got none for \"{}\", and "
                  "the model has no unknown token",
                  model_.origin_, word.substr(begin, character));
        offer(character, score + model_.unk_score_, model_.unk_id_);
      }
      begin += character;
    }
  }

  void AppendUnknown(std::string_view run, std::vector<int32_t>& ids) const {
    const int32_t known = model_.vocabulary_.Id(run);  // the unknown token's own text, for one
    const auto id_of = [&](char byte) { return model_.byte_ids_[static_cast<uint8_t>(byte)]; };
    if (known >= 0) {
      ids.push_back(known);
    } else if (std::ranges::all_of(run, [&](char byte) { return id_of(byte) >= 0; })) {
      for (const char byte : run) ids.push_back(id_of(byte));
    } else {
      ids.push_back(model_.unk_id_);
    }
  }

  const UnigramModel& model_;
  std::vector<Node> nodes_;
  std::vector<Part> parts_;
};

std::unique_ptr<Encoder> UnigramModel::NewEncoder() const {
  return std::make_unique<UnigramEncoder>(*this);
}

}  // namespace kvc::tokenizer
