#pragma once
// Byte-pair encoding, the model "BPE" of tokenizer.json.
//
// A word starts as one symbol for each character. While any two neighbours form a merge, the merge
// of lowest rank is applied at its leftmost place. A character that is no token becomes its bytes
// <0xHH> (with byte_fallback, where all of them are tokens), else the unknown token (with fuse_unk,
// one for a run of them), else nothing, as in Hugging Face's tokenizers.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/tokenizer/model.h"

namespace kvc::tokenizer {

using MergeList = std::vector<std::pair<std::string, std::string>>;

struct BpeOptions {
  std::string unk_token;  // empty: none
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a word that is a token is that token, whatever its merges give
};

// Vocabulary and merges.
class BpeModel final : public Model {
 public:
  // The rank of a merge is its index in `merges` (the last one, if it stands there twice). Throws
  // kBadInput when the parts or the result of a merge, or the unknown token, are not in the
  // vocabulary.
  BpeModel(Vocabulary vocabulary,
           const MergeList& merges,
           BpeOptions options,
           const std::string& origin);

  [[nodiscard]] const Vocabulary& vocabulary() const override { return vocabulary_; }
  [[nodiscard]] std::unique_ptr<Encoder> NewEncoder() const override;

 private:
  friend class BpeEncoder;
  struct Merge {
    int64_t pair = -1;  // (left id << 32) | right id; -1: an empty slot
    int32_t rank = 0;
    int32_t result = 0;
  };
  void AddMerge(const Merge& merge);
  [[nodiscard]] const Merge* FindMerge(int32_t left, int32_t right) const;
  [[nodiscard]] size_t SlotOf(int64_t pair) const;
  [[nodiscard]] bool MayCut(const MergeList& merges) const;

  Vocabulary vocabulary_;
  BpeOptions options_;
  std::vector<Merge> merges_;            // open addressing; a power of two, at most half full
  std::vector<int32_t> character_ids_;   // of code points below its size; -1: no token
  std::array<int32_t, 256> byte_ids_{};  // of <0xHH>; -1: no token
  int32_t unk_id_ = -1;
  bool cuts_ = false;
};

// Encodes words with one model and remembers the short ones that it has seen. One object serves one
// thread; it borrows the model.
class BpeEncoder final : public Encoder {
 public:
  explicit BpeEncoder(const BpeModel& model) : model_(model) {}
  // Appends the ids of `word` (valid UTF-8). Takes O(n log n) in its length.
  void Append(std::string_view word, std::vector<int32_t>& ids) override;

 private:
  struct Symbol {
    int32_t id = 0;
    int32_t previous = -1;
    int32_t next = -1;  // -1: this is the last
    bool removed = false;
  };
  struct Candidate {  // a merge of the symbol at `position` with its next
    int32_t rank = 0;
    int32_t position = 0;
    int32_t result = 0;
  };
  struct Remembered {
    size_t begin = 0;  // in remembered_ids_
    size_t count = 0;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  void AppendUncut(std::string_view word, std::vector<int32_t>& ids);
  void Start(std::string_view word);
  void AddSymbol(int32_t id);
  void AddUnknown(std::string_view character, bool& pending);
  void MergeAll();
  void Propose(int32_t position);

  const BpeModel& model_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  std::unordered_map<std::string, Remembered, Hash, std::equal_to<>> remembered_;
  std::vector<int32_t> remembered_ids_;
};

}  // namespace kvc::tokenizer
