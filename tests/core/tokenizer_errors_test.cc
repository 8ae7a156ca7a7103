// Errors of tokenizers: features that kvc lacks are refused by name, broken files are called so.

#include <memory>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "core/tokenizer/match.h"
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
  EXPECT_KVC_ERROR(Tokenizer::Load(directory_ / "no such directory"), kIo, "got none");
}

TEST_F(TokenizerErrors, UnknownComponentsAreNamed) {
  EXPECT_KVC_ERROR(LoadWith("normalizer", R"({"type": "Nmt"})"), kUnsupported,
                   "normalizer \"Nmt\"");
  EXPECT_KVC_ERROR(LoadWith("pre_tokenizer", R"({"type": "UnicodeScripts"})"), kUnsupported,
                   "pre-tokenizer \"UnicodeScripts\"");
  EXPECT_KVC_ERROR(LoadWith("decoder", R"({"type": "WordPiece"})"), kUnsupported,
                   "decoder \"WordPiece\"");
  EXPECT_KVC_ERROR(LoadWith("post_processor", R"({"type": "Other"})"), kUnsupported,
                   "post-processor \"Other\"");
  EXPECT_KVC_ERROR(LoadWith("model", R"({"type": "WordPiece", "vocab": {"a": 0}})"), kUnsupported,
                   "WordPiece");
  EXPECT_KVC_ERROR(LoadModelWith("end_of_word_suffix", "\"</w>\""), kUnsupported,
                   "end_of_word_suffix");
  EXPECT_KVC_ERROR(LoadModelWith("dropout", "0.1"), kUnsupported, "dropout");
}

TEST_F(TokenizerErrors, UntranslatableExpressionsAreRefused) {
  for (const char* expression :
       {"[a[b",     "[a-z&&",  "[a&&]", "[&&a]",  "[a[]b]", "[[:foo:]]", "(?x)a",
        "(?i-)a",   "(?--i)a", "(?)",   "(?i",    "\\1",    "\\pL",      "(?<name>a)",
        "[a",       "(a",      "a)",    "(?i)a)", "*a",     "(?i)*",     "[]a]",
        "\\p{Foo}", "\\xe9",   "\\u12", "\\",     "\\K"}) {
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
  for (const char* opening : {"(?i)", "[a", "[^a&&"}) {
    std::string expression;
    for (int i = 0; i < 20000; ++i) expression += opening;
    Json json = SmallTokenizer();
    json["pre_tokenizer"] = {
        {"type", "Split"}, {"pattern", {{"Regex", expression + "b"}}}, {"behavior", "Isolated"}};
    SCOPED_TRACE(opening);
    EXPECT_THROW((void)Load(json), Error);
  }
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

// As in transformers: the token gets the next id, which the embedding may not have.
TEST_F(TokenizerErrors, ConfigurationOfAnotherTokenizerAddsTokens) {
  testing::WriteText(directory_ / "tokenizer_config.json", R"({"eos_token": "<|im_end|>"})");
  const auto tokenizer = Load(SmallTokenizer());
  EXPECT_EQ(tokenizer->eos_id(), 4);
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_EQ(WarnOfOtherTokenizer(directory_.path(), 5), std::nullopt);
  const auto warning = WarnOfOtherTokenizer(directory_.path(), 4);
  ASSERT_TRUE(warning.has_value());
  EXPECT_NE(warning->find("the tokenizer has 5 ids, the model's embedding 4 rows"), warning->npos);
}

TEST_F(TokenizerErrors, BrokenConfiguration) {
  const auto expect = [&](const char* file, const char* text, const char* message) {
    SCOPED_TRACE(text);
    testing::WriteText(directory_ / file, text);
    EXPECT_KVC_ERROR((void)Load(SmallTokenizer()), kBadInput, message);
    std::filesystem::remove(directory_ / file);
  };
  const char* config = "tokenizer_config.json";
  expect(config, R"({"added_tokens_decoder": {"x": {"content": "a"}}})", "expected ids as keys");
  expect(config, R"({"added_tokens_decoder": {"-1": {"content": "a"}}})", "expected 0 or more");
  expect(config, R"({"added_tokens_decoder": {"7": {}}})", "\"content\"");
  expect(config, R"({"added_tokens_decoder": []})", "expected an object");
  expect(config, R"({"bos_token": {"content": 5}})", "bos_token: content: expected a string");
  expect(config, R"({"add_prefix_space": 1})", "expected true or false");
  expect(config, "[]", "expected an object");
  expect("special_tokens_map.json", R"({"pad_token": {}})", "\"content\"");
  expect("added_tokens.json", R"({"<m>": "x"})", "expected an integer");
  expect("added_tokens.json", R"({"<m>": -4})", "expected 0 or more");
  expect("config.json", R"({"model_type": 5})", "expected a string");
}

TEST_F(TokenizerErrors, OtherFilesAreCalledByTheirNames) {
  const std::string lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
  EXPECT_KVC_ERROR((void)LoadText(lfs), kBadInput, "a Git LFS pointer");
  EXPECT_KVC_ERROR((void)LoadText("<html><body>"), kBadInput, "an HTML page");
  std::filesystem::remove(directory_ / "tokenizer.json");
  testing::WriteText(directory_ / "tokenizer.model", lfs);
  EXPECT_KVC_ERROR((void)Tokenizer::Load(directory_.path()), kBadInput, "a Git LFS pointer");
  testing::WriteText(directory_ / "tokenizer.model", "IQ== 0\nIg== 1\n");
  EXPECT_KVC_ERROR((void)Tokenizer::Load(directory_.path()), kUnsupported, "tiktoken");
  std::filesystem::remove(directory_ / "tokenizer.model");
  testing::WriteText(directory_ / "vocab.json", R"({"a": 0})");
  testing::WriteText(directory_ / "merges.txt", "<!DOCTYPE html>");
  EXPECT_KVC_ERROR((void)Tokenizer::Load(directory_.path()), kBadInput, "an HTML page");
}

TEST_F(TokenizerErrors, BrokenUnigram) {
  const auto load = [&](const char* model) { return LoadWith("model", model); };
  EXPECT_KVC_ERROR(load(R"({"type": "Unigram", "vocab": [["a"]]})"), kBadInput, "vocab 0");
  EXPECT_KVC_ERROR(load(R"({"type": "Unigram", "vocab": [["a", "b"]]})"), kBadInput, "vocab 0");
  EXPECT_KVC_ERROR(load(R"({"type": "Unigram", "vocab": {"a": 0}})"), kBadInput, "vocab");
  EXPECT_KVC_ERROR(load(R"({"type": "Unigram", "vocab": [["a", 0], ["a", 1]]})"), kBadInput,
                   "twice");
  EXPECT_KVC_ERROR(LoadText(R"({"model": {"type": "Unigram", "vocab": [["a", 1e999]]}})"),
                   kBadInput, "JSON");
  EXPECT_KVC_ERROR(load(R"({"type": "Unigram", "vocab": [["a", 0]], "unk_id": 1})"), kBadInput,
                   "unk_id: expected one of 1 tokens, got 1");
  EXPECT_KVC_ERROR(load(R"({"type": "Unigram", "vocab": [["a", 0]], "unk_id": -1})"), kBadInput,
                   "unk_id");
}

// Scores of any size, and pieces that are empty or as long as the text.
TEST_F(TokenizerErrors, OddUnigramsWork) {
  Json json = SmallTokenizer();
  json["added_tokens"] = Json::array();
  json["model"] = Json::parse(R"({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0],
      ["", -1], ["a", -1e308], ["aa", 1e308], ["b", 1e308], ["ab", -1e308]]})");
  const auto tokenizer = Load(json);
  EXPECT_EQ(tokenizer->Encode("aab", SpecialTokens::kNone), (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(tokenizer->Encode("xyz", SpecialTokens::kNone), (std::vector<int32_t>{0}));
  EXPECT_EQ(tokenizer->Encode("", SpecialTokens::kNone), (std::vector<int32_t>{}));
  json["model"].erase("unk_id");
  EXPECT_KVC_ERROR((void)Load(json)->Encode("xyz", SpecialTokens::kNone), kBadInput,
                   "no unknown token");
}

TEST_F(TokenizerErrors, BrokenCharsmaps) {
  const auto load = [&](const std::string& base64) {
    return LoadWith(
        "normalizer",
        (R"({"type": "Precompiled", "precompiled_charsmap": ")" + base64 + "\"}").c_str());
  };
  EXPECT_KVC_ERROR(load("AAA"), kBadInput, "groups of 4");
  EXPECT_KVC_ERROR(load("A?AA"), kBadInput, "offset 1");
  EXPECT_KVC_ERROR(load("AAA="), kBadInput, "got 2 bytes");
  EXPECT_KVC_ERROR(load("AAAAAA=="), kBadInput, "got 0 bytes");      // no trie
  EXPECT_KVC_ERROR(load("/////wAAAAA="), kBadInput, "whole units");  // beyond the end
  EXPECT_KVC_ERROR(load("BAAAAAAAAAD/"), kBadInput, "UTF-8");        // replacement 0xff
  const auto tokenizer = load("BAAAAP////8=");                       // leads out of itself
  EXPECT_EQ(tokenizer->Encode("ab", SpecialTokens::kNone), (std::vector<int32_t>{2}));
}

TEST_F(TokenizerErrors, BrokenEndTokens) {
  for (const char* type : {"RobertaProcessing", "BertProcessing"}) {
    const auto load = [&](const std::string& rest) {
      return LoadWith("post_processor",
                      ("{\"type\": \"" + std::string(type) + "\"" + rest + "}").c_str());
    };
    EXPECT_KVC_ERROR(load(""), kBadInput, "\"cls\"");
    EXPECT_KVC_ERROR(load(R"(, "cls": ["a"], "sep": ["a", 0])"), kBadInput,
                     "cls: expected a token");
    EXPECT_KVC_ERROR(load(R"(, "cls": ["a", 0], "sep": ["b", -1])"), kBadInput, "sep: expected");
    EXPECT_KVC_ERROR(load(R"(, "cls": ["a", 0], "sep": ["b", 77])"), kBadInput, "got 77");
  }
}

TEST_F(TokenizerErrors, Gpt2FilesOfAnotherFamily) {
  testing::WriteText(directory_ / "vocab.json", R"({"a": 0})");
  testing::WriteText(directory_ / "merges.txt", "#version: 0.2\n");
  EXPECT_EQ(Tokenizer::Load(directory_.path())->vocab_size(), 2);  // with <|endoftext|>
  testing::WriteText(directory_ / "tokenizer_config.json",
                     R"({"tokenizer_class": "RobertaTokenizer"})");
  EXPECT_KVC_ERROR(Tokenizer::Load(directory_.path()), kUnsupported, "RobertaTokenizer");
}

}  // namespace
}  // namespace kvc
