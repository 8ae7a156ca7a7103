// Errors of tokenizers: features that kvc lacks are refused by name, broken files are called so.

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "tests/core/tokenizer_cases.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

// Two letters, their merge, and an added token.
Json SmallTokenizer() {
  return Json::parse(R"({
    "added_tokens": [{"id": 3, "content": "<s>", "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

class TokenizerErrors : public ::testing::Test {
 protected:
  std::unique_ptr<Tokenizer> Load(const Json& json) { return LoadText(json.dump()); }
  std::unique_ptr<Tokenizer> LoadText(std::string_view text) {
    testing::WriteText(directory_ / "tokenizer.json", text);
    return Tokenizer::Load(directory_.path());
  }
  std::unique_ptr<Tokenizer> LoadWith(const char* key, const char* value) {
    Json json = SmallTokenizer();
    json[key] = Json::parse(value);
    return Load(json);
  }
  std::unique_ptr<Tokenizer> LoadModelWith(const char* key, const char* value) {
    Json json = SmallTokenizer();
    json["model"][key] = Json::parse(value);
    return Load(json);
  }

  testing::TempDir directory_;
};

TEST_F(TokenizerErrors, SmallTokenizerWorks) {
  const auto tokenizer = Load(SmallTokenizer());
  EXPECT_EQ(tokenizer->Encode("abb<s>a", SpecialTokens::kNone), (std::vector<int32_t>{2, 1, 3, 0}));
  EXPECT_EQ(tokenizer->vocab_size(), 4);
}

TEST_F(TokenizerErrors, NothingThere) {
  EXPECT_KVC_ERROR(Tokenizer::Load(directory_.path()), kBadInput, "got none of them");
  EXPECT_KVC_ERROR(Tokenizer::Load(directory_ / "no such directory"), kBadInput, "none of them");
}

TEST_F(TokenizerErrors, UnknownComponentsAreNamed) {
  EXPECT_KVC_ERROR(LoadWith("normalizer", R"({"type": "BertNormalizer"})"), kUnsupported,
                   "normalizer \"BertNormalizer\"");
  EXPECT_KVC_ERROR(LoadWith("pre_tokenizer", R"({"type": "UnicodeScripts"})"), kUnsupported,
                   "pre-tokenizer \"UnicodeScripts\"");
  EXPECT_KVC_ERROR(LoadWith("decoder", R"({"type": "WordPiece"})"), kUnsupported,
                   "decoder \"WordPiece\"");
  EXPECT_KVC_ERROR(LoadWith("post_processor", R"({"type": "RobertaProcessing"})"), kUnsupported,
                   "post-processor \"RobertaProcessing\"");
  EXPECT_KVC_ERROR(LoadWith("model", R"({"type": "WordPiece", "vocab": {"a": 0}})"), kUnsupported,
                   "WordPiece");
  EXPECT_KVC_ERROR(LoadWith("model", R"({"type": "Unigram", "vocab": [["a", 0.0]]})"), kUnsupported,
                   "Unigram");
  EXPECT_KVC_ERROR(LoadModelWith("end_of_word_suffix", "\"</w>\""), kUnsupported,
                   "end_of_word_suffix");
  EXPECT_KVC_ERROR(LoadModelWith("dropout", "0.1"), kUnsupported, "dropout");
}

TEST_F(TokenizerErrors, UntranslatableExpressionsAreRefused) {
  for (const char* expression :
       {"[a[bc]]", "[a-z&&[^b]]", "\\h", "(?i)a", "(?m:.)", "\\1", "\\pL", "(?<name>a)", "[a", "(a",
        "a)", "*a", "[]a]", "\\p{Foo}", "\\xe9", "\\u12", "\\", "\\K", "[\\W]"}) {
    Json json = SmallTokenizer();
    json["pre_tokenizer"] = {{"type", "Split"},
                             {"pattern", {{"Regex", expression}}},
                             {"behavior", "Isolated"},
                             {"invert", false}};
    SCOPED_TRACE(expression);
    try {
      (void)Load(json);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("regular expression"), std::string::npos) << text;
    }
  }
}

TEST_F(TokenizerErrors, BrokenJson) {
  EXPECT_KVC_ERROR(LoadText(""), kBadInput, "syntax error");
  EXPECT_KVC_ERROR(LoadText("{\"model\": "), kBadInput, "syntax error");
  EXPECT_KVC_ERROR(LoadText("[]"), kBadInput, "expected an object");
  EXPECT_KVC_ERROR(LoadText("{}"), kBadInput, "\"model\"");
  EXPECT_KVC_ERROR(LoadText("{\"a\": \"\xff\"}"), kBadInput, "syntax error");
  EXPECT_KVC_ERROR(LoadText(std::string(1 << 20, '[')), kBadInput, "nested");
  std::string keys = "{";
  for (int i = 0; i < 20000; ++i) keys += "\"" + std::to_string(i) + "\":0,";
  EXPECT_KVC_ERROR(LoadText(keys + "\"\":0}"), kBadInput, "keys in an object");
}

// Wraps a component in `depth` Sequences.
std::string Nest(std::string component, const std::string& list, int depth) {
  for (int i = 0; i < depth; ++i) {
    component = R"({"type": "Sequence", ")" + list + "\": [" + component + "]}";
  }
  return component;
}

// One component of each list of tokenizer.json.
struct ListCase {
  const char* key;
  const char* list;
  const char* component;
};
constexpr ListCase kLists[] = {
    {"normalizer", "normalizers", R"({"type": "NFC"})"},
    {"pre_tokenizer", "pretokenizers", R"({"type": "WhitespaceSplit"})"},
    {"decoder", "decoders", R"({"type": "Fuse"})"},
    {"post_processor", "processors", R"({"type": "ByteLevel"})"},
};

TEST_F(TokenizerErrors, SequencesMayBeNestedEightDeep) {
  for (const auto& [key, list, component] : kLists) {
    SCOPED_TRACE(key);
    const auto tokenizer = LoadWith(key, Nest(component, list, 7).c_str());
    EXPECT_EQ(tokenizer->Encode("abb", SpecialTokens::kNone), (std::vector<int32_t>{2, 1}));
    EXPECT_KVC_ERROR(LoadWith(key, Nest(component, list, 8).c_str()), kBadInput,
                     "nested at most 8 deep");
    EXPECT_KVC_ERROR(LoadWith(key, Nest("{}", list, 2).c_str()), kBadInput, "type");
    EXPECT_KVC_ERROR(LoadWith(key, R"({"type": "Sequence"})"), kBadInput, list);
  }
}

// Steps apply in order, also those of inner Sequences: "a" -> "b" -> "ab", not "ab" -> "bb".
TEST_F(TokenizerErrors, SequencesKeepTheirOrder) {
  const char* steps = R"({"type": "Sequence", "normalizers": [
      {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}]},
      {"type": "Replace", "pattern": {"String": "b"}, "content": "ab"}]})";
  EXPECT_EQ(LoadWith("normalizer", steps)->Encode("a", SpecialTokens::kNone),
            (std::vector<int32_t>{2}));
}

TEST_F(TokenizerErrors, HostileRecursion) {
  const std::string groups = std::string(100000, '(') + std::string(100000, ')');
  EXPECT_KVC_ERROR(LoadWith("pre_tokenizer",
                            (R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": ")" +
                             groups + R"("}})")
                                .c_str()),
                   kBadInput, "regular expression");
}

TEST_F(TokenizerErrors, BrokenVocabulary) {
  EXPECT_KVC_ERROR(LoadModelWith("vocab", R"({"a": 0, "b": 0})"), kBadInput, "id 0");
  EXPECT_KVC_ERROR(LoadModelWith("vocab", R"({"a": -1, "b": 0})"), kBadInput, "got -1");
  EXPECT_KVC_ERROR(LoadModelWith("vocab", R"({"a": 2147483647, "b": 0})"), kBadInput, "2147483647");
  EXPECT_KVC_ERROR(LoadModelWith("vocab", R"({"a": 18446744073709551615})"), kBadInput,
                   "expected an integer");
  EXPECT_KVC_ERROR(LoadModelWith("vocab", R"({"a": 0.5})"), kBadInput, "expected an integer");
  EXPECT_KVC_ERROR(LoadModelWith("vocab", R"({"a": {}})"), kBadInput, "expected an integer");
  EXPECT_KVC_ERROR(LoadModelWith("vocab", "7"), kBadInput, "merge 0");
  EXPECT_KVC_ERROR(
      LoadText(R"({"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}})"), kBadInput,
      "got twice");
}

TEST_F(TokenizerErrors, BrokenMerges) {
  EXPECT_KVC_ERROR(LoadModelWith("merges", R"(["a c"])"), kBadInput, "merge 0");
  EXPECT_KVC_ERROR(LoadModelWith("merges", R"(["b a"])"), kBadInput, "\"ba\"");
  EXPECT_KVC_ERROR(LoadModelWith("merges", R"(["ab"])"), kBadInput, "two tokens");
  EXPECT_KVC_ERROR(LoadModelWith("merges", R"(["a  b"])"), kBadInput, "two tokens");
  EXPECT_KVC_ERROR(LoadModelWith("merges", R"([["a", "b", "c"]])"), kBadInput, "merges");
  EXPECT_KVC_ERROR(LoadModelWith("merges", R"([["a", 1]])"), kBadInput, "merges");
  EXPECT_KVC_ERROR(LoadModelWith("merges", "null"), kBadInput, "merges");
  EXPECT_KVC_ERROR(LoadModelWith("unk_token", "\"<unk>\""), kBadInput, "<unk>");
}

TEST_F(TokenizerErrors, BrokenAddedTokens) {
  EXPECT_KVC_ERROR(LoadWith("added_tokens", R"([{"id": 1, "content": "<s>"}])"), kBadInput,
                   "which is \"b\"");
  EXPECT_KVC_ERROR(LoadWith("added_tokens", R"([{"id": 3, "content": "a"}])"), kBadInput,
                   "the vocabulary's id 0");
  EXPECT_KVC_ERROR(
      LoadWith("added_tokens", R"([{"id": 3, "content": "x"}, {"id": 3, "content": "y"}])"),
      kBadInput, "twice");
  EXPECT_KVC_ERROR(LoadWith("added_tokens", R"([{"id": -3, "content": "x"}])"), kBadInput, "-3");
  EXPECT_KVC_ERROR(LoadWith("added_tokens", R"([{"content": "x"}])"), kBadInput, "\"id\"");
  EXPECT_KVC_ERROR(LoadWith("added_tokens", "5"), kBadInput, "added_tokens");
}

TEST_F(TokenizerErrors, BrokenPostProcessor) {
  constexpr const char* kTemplate = R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}],
      "special_tokens": {"x": {"ids": [77]}}})";
  EXPECT_KVC_ERROR(LoadWith("post_processor", kTemplate), kBadInput, "got 77");
  constexpr const char* kNoText = R"({"type": "TemplateProcessing", "single": [],
      "special_tokens": {}})";
  EXPECT_KVC_ERROR(LoadWith("post_processor", kNoText), kUnsupported, "without the text");
}

TEST_F(TokenizerErrors, TextThatIsNoUtf8) {
  const auto tokenizer = Load(SmallTokenizer());
  for (const char* text : {"a\xff", "\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80"}) {
    EXPECT_KVC_ERROR((void)tokenizer->Encode(text, SpecialTokens::kNone), kBadInput, "text");
  }
}

TEST_F(TokenizerErrors, CostlyExpressionsStop) {
  const auto tokenizer = LoadWith("pre_tokenizer",
                                  R"({"type": "Split", "behavior": "Isolated", "invert": false,
                                      "pattern": {"Regex": "(a+)+c"}})");
  EXPECT_KVC_ERROR((void)tokenizer->Encode(std::string(200, 'a') + "bc", SpecialTokens::kNone),
                   kBadInput, "limit");
}

// The configuration beside the tokenizer.
TEST_F(TokenizerErrors, ConfigurationGivesSpecialTokens) {
  testing::WriteText(directory_ / "tokenizer_config.json",
                     R"({"bos_token": {"content": "<s>"}, "add_bos_token": true})");
  testing::WriteText(directory_ / "special_tokens_map.json", R"({"eos_token": "a"})");
  const auto tokenizer = Load(SmallTokenizer());
  EXPECT_EQ(tokenizer->bos_id(), 3);
  EXPECT_EQ(tokenizer->eos_id(), 0);
  EXPECT_EQ(tokenizer->Encode("b", SpecialTokens::kNone), (std::vector<int32_t>{1}));
  EXPECT_EQ(tokenizer->Encode("b", SpecialTokens::kAdd), (std::vector<int32_t>{3, 1}));
}

TEST_F(TokenizerErrors, ConfigurationOfAnotherTokenizer) {
  testing::WriteText(directory_ / "tokenizer_config.json", R"({"eos_token": "<|im_end|>"})");
  EXPECT_KVC_ERROR(Load(SmallTokenizer()), kBadInput, "<|im_end|>");
}

TEST_F(TokenizerErrors, SentencePieceModelThatIsNone) {
  testing::WriteText(directory_ / "tokenizer.model", "not a model");
  EXPECT_KVC_ERROR(Tokenizer::Load(directory_.path()), kBadInput, "SentencePiece model");
}

TEST_F(TokenizerErrors, Gpt2FilesOfAnotherFamily) {
  testing::WriteText(directory_ / "vocab.json", R"({"a": 0})");
  testing::WriteText(directory_ / "merges.txt", "#version: 0.2\n");
  EXPECT_EQ(Tokenizer::Load(directory_.path())->vocab_size(), 1);
  testing::WriteText(directory_ / "tokenizer_config.json",
                     R"({"tokenizer_class": "RobertaTokenizer"})");
  EXPECT_KVC_ERROR(Tokenizer::Load(directory_.path()), kUnsupported, "RobertaTokenizer");
}

}  // namespace
}  // namespace kvc
