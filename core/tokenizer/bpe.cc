#include "core/tokenizer/bpe.h"

#include <algorithm>
#include <bit>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

constexpr std::string_view kMetaspace = "\u2581";
// Characters whose ids are looked up in a table: Latin, Greek, Cyrillic, Hebrew, Arabic, ... up to
// the CJK symbols.
constexpr size_t kCharacterTable = 0x3100;
// Longer words seldom come back; 2^16 words cover a text in one language but for names.
constexpr size_t kRememberedBytes = 128;
constexpr size_t kRememberedWords = size_t{1} << 16;

int64_t PairOf(int32_t left, int32_t right) { return (static_cast<int64_t>(left) << 32) | right; }

}  // namespace

BpeModel::BpeModel(Vocabulary vocabulary,
                   const MergeList& merges,
                   BpeOptions options,
                   const std::string& origin)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)) {
  if (!options_.unk_token.empty()) {
    unk_id_ = vocabulary_.Id(options_.unk_token);
    KVC_CHECK(unk_id_ >= 0, kBadInput,
              "{}: unk_token: expected a token, got \"{}\", which is not in the vocabulary", origin,
              options_.unk_token);
  }
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    byte_ids_[byte] = vocabulary_.Id(ByteToken(static_cast<uint8_t>(byte)));
  }
  for (size_t point = 0; point < kCharacterTable; ++point) {
    std::string character;
    AppendUtf8(static_cast<char32_t>(point), character);
    character_ids_.push_back(vocabulary_.Id(character));
  }
  merges_.resize(std::bit_ceil(2 * merges.size() + 2));
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const int32_t left_id = vocabulary_.Id(left);
    const int32_t right_id = vocabulary_.Id(right);
    const int32_t result = vocabulary_.Id(left + right);
    KVC_CHECK(left_id >= 0 && right_id >= 0 && result >= 0, kBadInput,
              "{}: merge {}: expected tokens of the vocabulary, got \"{}\" + \"{}\" = \"{}\"",
              origin, rank, left, right, left + right);
    AddMerge({PairOf(left_id, right_id), static_cast<int32_t>(rank), result});
  }
  cuts_ = MayCut(merges);
}

size_t BpeModel::SlotOf(int64_t pair) const {
  // Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
  const uint64_t hash = static_cast<uint64_t>(pair) * 0x9E3779B97F4A7C15U;
  const size_t mask = merges_.size() - 1;
  size_t slot = (hash >> 32) & mask;
  while (merges_[slot].pair != pair && merges_[slot].pair >= 0) slot = (slot + 1) & mask;
  return slot;
}

void BpeModel::AddMerge(const Merge& merge) { merges_[SlotOf(merge.pair)] = merge; }

const BpeModel::Merge* BpeModel::FindMerge(int32_t left, int32_t right) const {
  const Merge& merge = merges_[SlotOf(PairOf(left, right))];
  return merge.pair < 0 ? nullptr : &merge;
}

// Returns true when a text may be cut before every U+2581 that follows another character, without a
// change of its ids. That is so when no merge joins two symbols across such a place: the result of
// a merge is a token, whose text would hold the place. The character itself must be a token, so
// that a run of unknown characters ends before it. Where whole words are looked up (ignore_merges)
// nothing is cut.
bool BpeModel::MayCut(const MergeList& merges) const {
  if (options_.ignore_merges || vocabulary_.Id(kMetaspace) < 0) return false;
  if (options_.unk_token.find(kMetaspace) != std::string::npos) return false;
  for (const auto& [left, right] : merges) {
    const std::string token = left + right;
    const size_t first_other = [&] {
      size_t at = 0;
      while (std::string_view(token).substr(at).starts_with(kMetaspace)) at += kMetaspace.size();
      return at;
    }();
    if (token.find(kMetaspace, first_other) != std::string::npos) return false;
  }
  return true;
}

std::unique_ptr<Encoder> BpeModel::NewEncoder() const {
  return std::make_unique<BpeEncoder>(*this);
}

void BpeEncoder::Append(std::string_view word, std::vector<int32_t>& ids) {
  if (model_.cuts_) {
    size_t at = word.find(kMetaspace, 1);
    while (at != std::string_view::npos) {
      const bool run = word.substr(0, at).ends_with(kMetaspace);
      if (!run) {
        AppendUncut(word.substr(0, at), ids);
        word.remove_prefix(at);
        at = 0;
      }
      at = word.find(kMetaspace, at + kMetaspace.size());
    }
  }
  if (!word.empty()) AppendUncut(word, ids);
}

void BpeEncoder::AppendUncut(std::string_view word, std::vector<int32_t>& ids) {
  if (model_.options_.ignore_merges) {
    const int32_t id = model_.vocabulary_.Id(word);
    if (id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  const bool is_short = word.size() <= kRememberedBytes;
  if (is_short) {
    const auto known = remembered_.find(word);
    if (known != remembered_.end()) {
      const auto begin = remembered_ids_.begin() + static_cast<ptrdiff_t>(known->second.begin);
      ids.insert(ids.end(), begin, begin + static_cast<ptrdiff_t>(known->second.count));
      return;
    }
  }
  Start(word);
  MergeAll();
  const size_t first = ids.size();
  for (const Symbol& symbol : symbols_) {
    if (!symbol.removed) ids.push_back(symbol.id);
  }
  if (is_short && remembered_.size() < kRememberedWords) {
    remembered_.emplace(word, Remembered{remembered_ids_.size(), ids.size() - first});
    remembered_ids_.insert(remembered_ids_.end(), ids.begin() + static_cast<ptrdiff_t>(first),
                           ids.end());
  }
}

void BpeEncoder::AddSymbol(int32_t id) {
  const auto position = static_cast<int32_t>(symbols_.size());
  if (position > 0) symbols_.back().next = position;
  symbols_.push_back({id, position - 1, -1, false});
}

// `pending` says that an unknown token is not written yet. As in Hugging Face's tokenizers, it is
// written before the next known character, hence after byte tokens that come between.
void BpeEncoder::AddUnknown(std::string_view character, bool& pending) {
  if (model_.options_.byte_fallback) {
    const auto id_of = [this](char byte) { return model_.byte_ids_[static_cast<uint8_t>(byte)]; };
    if (std::all_of(character.begin(), character.end(), [&](char b) { return id_of(b) >= 0; })) {
      for (const char byte : character) AddSymbol(id_of(byte));
      return;
    }
  }
  if (model_.unk_id_ < 0) return;
  if (pending && !model_.options_.fuse_unk) AddSymbol(model_.unk_id_);
  pending = true;
}

void BpeEncoder::Start(std::string_view word) {
  symbols_.clear();
  bool pending = false;
  for (size_t at = 0; at < word.size();) {
    const size_t begin = at;
    const char32_t point = NextCodePoint(word, at);
    const std::string_view character = word.substr(begin, at - begin);
    const int32_t id =
        point < kCharacterTable ? model_.character_ids_[point] : model_.vocabulary_.Id(character);
    if (id < 0) {
      AddUnknown(character, pending);
      continue;
    }
    if (pending) AddSymbol(model_.unk_id_);
    pending = false;
    AddSymbol(id);
  }
  if (pending) AddSymbol(model_.unk_id_);
}

void BpeEncoder::Propose(int32_t position) {
  const Symbol& left = symbols_[static_cast<size_t>(position)];
  if (left.next < 0) return;
  const auto* merge = model_.FindMerge(left.id, symbols_[static_cast<size_t>(left.next)].id);
  if (merge != nullptr) heap_.push_back({merge->rank, position, merge->result});
}

void BpeEncoder::MergeAll() {
  // The heap's front is the merge to apply: lowest rank, then leftmost.
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  heap_.clear();
  for (size_t i = 0; i + 1 < symbols_.size(); ++i) Propose(static_cast<int32_t>(i));
  std::make_heap(heap_.begin(), heap_.end(), later);
  const auto propose = [&](int32_t position) {
    const size_t before = heap_.size();
    Propose(position);
    if (heap_.size() > before) std::push_heap(heap_.begin(), heap_.end(), later);
  };
  while (!heap_.empty()) {
    const Candidate best = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), later);
    heap_.pop_back();
    Symbol& left = symbols_[static_cast<size_t>(best.position)];
    if (left.removed || left.next < 0) continue;
    Symbol& right = symbols_[static_cast<size_t>(left.next)];
    const auto* merge = model_.FindMerge(left.id, right.id);
    if (merge == nullptr || merge->result != best.result) continue;  // a neighbour has changed
    left.id = best.result;
    left.next = right.next;
    right.removed = true;
    if (right.next >= 0) symbols_[static_cast<size_t>(right.next)].previous = best.position;
    if (left.previous >= 0) propose(left.previous);
    propose(best.position);
  }
}

}  // namespace kvc::tokenizer
