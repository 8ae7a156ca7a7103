#include "core/io/safetensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

std::string WithLength(uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + rest;
}

std::string File(const std::string& header, size_t data_bytes) {
  return WithLength(header.size(), header + std::string(data_bytes, '\x01'));
}

// One broken file for each attack; the message must say what is wrong with it.
struct Attack {
  const char* name;
  std::string bytes;
  const char* message;
  ErrorKind kind = ErrorKind::kBadInput;
};

std::vector<Attack> HeaderAttacks() {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const std::string deep = "{\"a\":" + std::string(200'000, '[');
  return {
      {"empty file", "", "8 bytes"},
      {"shorter than a length", "\x01\x02\x03", "truncated"},
      {"length beyond the file", WithLength(1000, good), "truncated"},
      {"length at the cap", WithLength(100'000'001, good), "at most 100000000"},
      {"a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
       "Git LFS pointer; f"},
      {"an HTML page", "\n<!DOCTYPE html><html><title>404</title></html>",
       "an HTML page; download"},
      {"a zip archive", std::string("PK\x03\x04\x00\x00\x08\x08", 8) + "archive/data.pkl",
       "a zip archive, as PyTorch"},
      {"a pickle", std::string("\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\0", 16), "a pickle"},
      {"a GGUF", std::string("GGUF\x03\0\0\0\x10\0\0\0", 12), "a GGUF file"},
      {"a gzip archive", std::string("\x1f\x8b\x08\0\0\0\0\0\0\0", 10), "a gzip archive"},
      {"length that wraps", WithLength(std::numeric_limits<uint64_t>::max(), good), "at most"},
      {"length of nothing", File("", 0), "starts with '{'"},
      {"not UTF-8", File("{\"\xff\":1}", 0), "UTF-8"},
      {"leading space", File(" " + good, 8), "starts with '{'"},
      {"not JSON", File("{nonsense}", 0), "JSON"},
      {"two values", File("{}{}", 0), "JSON"},
      {"null byte behind", File(good + std::string(1, '\0'), 8), "JSON"},
      {"deep nesting", File(deep, 0), "JSON"},
      {"an array inside", File(R"({"a":[1,2]})", 0), "expected an object"},
      {"metadata of numbers", File(R"({"__metadata__":{"a":1}})", 0), "expected a string"},
      {"metadata not an object", File(R"({"__metadata__":"x"})", 0), "expected an object"},
      {"truncated data", File(good, 7), "truncated"},
      {"data behind the tensors", File(good, 9), "no tensor owns"},
      {"data without tensors", File("{}", 1), "no tensor owns"},
  };
}

std::string Tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"a\":" + Tensor(dtype, shape, offsets) + "}";
}

std::string Two(const std::string& first, const std::string& second) {
  return "{\"a\":" + Tensor("U8", "[4]", first) + ",\"b\":" + Tensor("U8", "[4]", second) + "}";
}

std::vector<Attack> TensorAttacks() {
  const std::string a = Tensor("U8", "[4]", "[0,4]");
  return {
      {"overlap", File(Two("[0,4]", "[2,6]"), 6), "(overlap)"},
      {"the same range twice", File(Two("[0,4]", "[0,4]"), 4), "(overlap)"},
      {"gap between", File(Two("[0,4]", "[5,9]"), 9), "(gap)"},
      {"gap in front", File(One("U8", "[4]", "[1,5]"), 5), "(gap)"},
      {"offsets beyond the file", File(One("U8", "[400]", "[0,400]"), 4), "truncated"},
      {"offsets reversed", File(One("U8", "[4]", "[4,0]"), 4), "in order"},
      {"negative offset", File(One("U8", "[4]", "[-4,0]"), 4), "non-negative"},
      {"offset above 63 bits", File(One("U8", "[4]", "[0,18446744073709551615]"), 4),
       "non-negative"},
      {"offset as text", File(One("U8", "[4]", "[\"0\",4]"), 4), "non-negative"},
      {"fractional offset", File(One("U8", "[4]", "[0.0,4.0]"), 4), "non-negative"},
      {"one offset", File(One("U8", "[4]", "[4]"), 4), "two data_offsets"},
      {"range not of the shape", File(One("U8", "[5]", "[0,4]"), 4), "expected 5 bytes"},
      {"product overflows", File(One("U8", "[4294967296,4294967296,16]", "[0,0]"), 0), "overflow"},
      {"product wraps to fit", File(One("F32", "[4611686018427387905]", "[0,4]"), 4), "overflow"},
      {"negative size", File(One("U8", "[-1]", "[0,4]"), 4), "non-negative"},
      {"shape not a list", File(One("U8", "4", "[0,4]"), 4), "expected an array"},
      {"nested size", File(One("U8", "[[4]]", "[0,4]"), 4), "non-negative"},
      {"unknown dtype, reversed", File(One("F9", "[4]", "[4,0]"), 4), "in order"},
      {"dtype as number", File(R"({"a":{"dtype":3,"shape":[4],"data_offsets":[0,4]}})", 4),
       "dtype"},
      {"no shape", File(R"({"a":{"dtype":"U8","data_offsets":[0,4]}})", 4), "shape"},
      {"name twice", File("{\"a\":" + a + ",\"a\":" + a + "}", 4), "twice"},
      {"key twice",
       File(R"({"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}})", 4), "twice"},
  };
}

class Attacks : public ::testing::TestWithParam<Attack> {};

TEST_P(Attacks, IsRefused) {
  const testing::TempDir dir;
  WriteFile(dir / "x.safetensors", GetParam().bytes);
  try {
    (void)SafetensorsReader::OpenFile(dir / "x.safetensors");
    FAIL() << GetParam().name << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), GetParam().kind) << error.what();
    EXPECT_NE(std::string(error.what()).find(GetParam().message), std::string::npos)
        << error.what();
    EXPECT_NE(std::string(error.what()).find("x.safetensors"), std::string::npos) << error.what();
  }
}

std::string AttackName(const ::testing::TestParamInfo<Attack>& info) {
  std::string name;
  for (const char c : std::string(info.param.name)) {
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  }
  return name;
}

void PrintTo(const Attack& attack, std::ostream* stream) { *stream << attack.name; }

INSTANTIATE_TEST_SUITE_P(Header, Attacks, ::testing::ValuesIn(HeaderAttacks()), AttackName);
INSTANTIATE_TEST_SUITE_P(Tensors, Attacks, ::testing::ValuesIn(TensorAttacks()), AttackName);

TEST(SafetensorsReader, EveryTruncationIsRefused) {
  const testing::TempDir dir;
  SafetensorsWriter writer(dir / "a.safetensors", {{"x", DType::kF32, {3}}, {"y", DType::kU8, {}}});
  writer.WriteFloats("x", std::vector<float>{1, 2, 3});
  writer.Write("y", std::as_bytes(std::span<const char>("z", 1)));
  writer.Close();
  const std::string whole = ReadFile(dir / "a.safetensors");
  for (size_t size = 0; size < whole.size(); ++size) {
    WriteFile(dir / "b.safetensors", whole.substr(0, size));
    EXPECT_KVC_ERROR((void)SafetensorsReader::OpenFile(dir / "b.safetensors"), kBadInput, "b.safe");
  }
}

TEST(SafetensorsReader, AcceptsUnusualButValidFiles) {
  const testing::TempDir dir;
  WriteFile(dir / "empty.safetensors", File("{}", 0));
  EXPECT_TRUE(SafetensorsReader::OpenFile(dir / "empty.safetensors").names().empty());
  // Trailing spaces, an odd header length, an empty tensor between others, a scalar, any order.
  const std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"},\"b\":" + Tensor("F16", "[]", "[4,6]") +
      ",\"none\":" + Tensor("F32", "[0,7]", "[4,4]") + ",\"a\":" + Tensor("U8", "[2,2]", "[0,4]") +
      "}   ";
  WriteFile(dir / "odd.safetensors", File(header, 6));
  SafetensorsReader reader = SafetensorsReader::OpenFile(dir / "odd.safetensors");
  EXPECT_EQ(reader.names(), (std::vector<std::string>{"a", "b", "none"}));
  EXPECT_EQ(reader.metadata().at("format"), "pt");
  EXPECT_EQ(reader.Get("b").num_elements(), 1);
  EXPECT_EQ(reader.Get("none").num_elements(), 0);
  reader.Release("none");
  reader.Prefetch("none");
  reader.Prefetch("b");
  EXPECT_KVC_ERROR(reader.Prefetch("c"), kBadInput, "\"c\"");
  EXPECT_FALSE(reader.Contains("c"));
  EXPECT_KVC_ERROR((void)reader.Get("c"), kBadInput, "\"c\"");
}

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  const testing::TempDir dir;
  const std::vector<float> values = {1.0F, -2.5F, 0.0F, 1024.0F, 3.0F, -7.0F};
  const std::string name = "quote \" and \xc3\xa9";
  SafetensorsWriter writer(dir / "a.safetensors",
                           {{name, DType::kBF16, {2, 3}},
                            {"f16", DType::kF16, {6}},
                            {"f32", DType::kF32, {3, 2, 1}},
                            {"empty", DType::kI64, {0}}},
                           {{"k", "v"}});
  writer.WriteFloats(name, values);
  writer.WriteFloats("f16", values);
  writer.WriteFloats("f32", values);
  EXPECT_FALSE(fs::exists(dir / "a.safetensors"));
  writer.Write("empty", {});
  writer.Close();
  const SafetensorsReader reader = SafetensorsReader::OpenFile(dir / "a.safetensors");
  EXPECT_EQ(reader.metadata().at("k"), "v");
  EXPECT_EQ(reader.Get("f32").shape, (std::vector<int64_t>{3, 2, 1}));
  for (const std::string& tensor : {name, std::string("f16"), std::string("f32")}) {
    std::vector<float> back(6);
    ConvertToFloat(reader.Get(tensor).dtype, reader.Get(tensor).bytes.data(), 6, back.data());
    EXPECT_EQ(back, values) << tensor;  // these values are exact in all three types
    reader.Release(tensor);
  }
}

TEST(SafetensorsWriter, ManyElementsGoThroughTheChunks) {
  const testing::TempDir dir;
  std::vector<float> values(200'001);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i % 256);
  }
  SafetensorsWriter writer(dir / "a.safetensors", {{"x", DType::kF16, {200'001}}});
  writer.WriteFloats("x", values);
  writer.Close();
  const SafetensorsReader reader = SafetensorsReader::OpenFile(dir / "a.safetensors");
  std::vector<float> back(values.size());
  ConvertToFloat(DType::kF16, reader.Get("x").bytes.data(), 200'001, back.data());
  EXPECT_EQ(back, values);
}

TEST(SafetensorsWriter, CopiesTensorsOfAReader) {
  const testing::TempDir dir;
  {
    SafetensorsWriter writer(dir / "a", {{"x", DType::kF32, {3}}, {"y", DType::kU8, {2}}});
    writer.WriteFloats("x", std::vector<float>{1, 2, 3});
    writer.Write("y", std::as_bytes(std::span<const char>("yz", 2)));
    writer.Close();
  }
  const SafetensorsReader source = SafetensorsReader::OpenFile(dir / "a");
  SafetensorsWriter writer(dir / "b", {{"y", DType::kU8, {2}}, {"x", DType::kF32, {3}}});
  writer.Copy("y", source);
  EXPECT_KVC_ERROR(writer.Copy("y", source), kInternal, "expected x");
  writer.Copy("x", source);
  writer.Close();
  const SafetensorsReader copy = SafetensorsReader::OpenFile(dir / "b");
  for (const char* name : {"x", "y"}) {
    EXPECT_TRUE(std::ranges::equal(copy.Get(name).bytes, source.Get(name).bytes)) << name;
  }
  SafetensorsWriter other(dir / "c", {{"y", DType::kU8, {3}}});
  EXPECT_KVC_ERROR(other.Copy("y", source), kInternal, "3 bytes, got 2");
}

TEST(SafetensorsWriter, RefusesMisuseAndLeavesNothing) {
  const testing::TempDir dir;
  {
    SafetensorsWriter writer(dir / "a.safetensors", {{"x", DType::kF32, {2}}});
    EXPECT_KVC_ERROR(writer.WriteFloats("y", std::vector<float>{1, 2}), kInternal, "expected x");
    EXPECT_KVC_ERROR(writer.Close(), kInternal, "expected 1 tensors, got 0");
    EXPECT_KVC_ERROR(writer.WriteFloats("x", std::vector<float>{1}), kInternal, "2 values, got 1");
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
  EXPECT_KVC_ERROR(SafetensorsWriter(dir / "a", {{"x", DType::kF32, {}}, {"x", DType::kF32, {}}}),
                   kInternal, "twice");
  EXPECT_KVC_ERROR(SafetensorsWriter("/dev/full", {{"x", DType::kF32, {0}}}), kIo, "No space left");
}

// Shards a = {x, y} and b = {z} of one byte each under DIR, with this index.
void WriteShards(const fs::path& dir, const std::string& index) {
  for (const auto& [file, names] : std::map<std::string, std::vector<std::string>>{
           {"a.safetensors", {"x", "y"}}, {"b.safetensors", {"z"}}}) {
    std::vector<TensorSpec> specs;
    for (const std::string& name : names) {
      specs.push_back({name, DType::kU8, {1}});
    }
    SafetensorsWriter writer(dir / file, specs);
    for (const std::string& name : names) {
      writer.Write(name, std::as_bytes(std::span<const char>(name)));
    }
    writer.Close();
  }
  WriteFile(dir / "model.safetensors.index.json", index);
}

TEST(SafetensorsShards, OpensAllOfThem) {
  const testing::TempDir dir;
  WriteShards(dir.path(),
              R"({"weight_map":{"x":"a.safetensors","y":"a.safetensors","z":"b.safetensors"}})");
  SafetensorsReader reader = SafetensorsReader::OpenDirectory(dir.path());
  EXPECT_EQ(reader.names(), (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_EQ(reader.files().size(), 2U);
  const SafetensorsReader moved = std::move(reader);
  EXPECT_EQ(static_cast<char>(moved.Get("z").bytes[0]), 'z');
  moved.Release("y");
  EXPECT_EQ(static_cast<char>(moved.Get("y").bytes[0]), 'y');
  EXPECT_TRUE(moved.missing().empty() && moved.unreadable().empty());
}

TEST(SafetensorsShards, RefusesAnIndexThatLies) {
  const testing::TempDir dir;
  const testing::TempDir outside;
  WriteShards(outside.path(), "{}");
  const auto expect = [&](const std::string& map, const char* message) {
    WriteShards(dir.path(), R"({"weight_map":)" + map + "}");
    EXPECT_KVC_ERROR((void)SafetensorsReader::OpenDirectory(dir.path()), kBadInput, message);
  };
  const std::string other = outside.path().filename().string();
  expect("{\"x\":\"../" + other + "/a.safetensors\"}", "same directory");
  expect("{\"x\":\"" + outside.path().string() + "/a.safetensors\"}", "same directory");
  expect(R"({"x":".."})", "same directory");
  expect(R"({"x":""})", "same directory");
  expect(R"({"x":"a.safetensors\u0000"})", "same directory");
  expect(R"({"x":"c.safetensors"})", "expected the shard c.safetensors");
  expect(R"({"x":5})", "expected a string");
  expect("{}", "an empty one");
  expect("[]", "expected an object");
}

TEST(SafetensorsShards, KnowsWhatTheIndexPromisedInVain) {
  const testing::TempDir dir;
  WriteShards(dir.path(), R"({"weight_map":{"y":"b.safetensors","w":"b.safetensors",)"
                          R"("a":"b.safetensors","x":"a.safetensors"}})");
  const SafetensorsReader reader = SafetensorsReader::OpenDirectory(dir.path());
  EXPECT_EQ(reader.missing(), (std::vector<std::string>{"a", "w", "y"}));
  EXPECT_TRUE(reader.Contains("y"));  // in the other shard
  EXPECT_KVC_ERROR((void)reader.Get("w"), kBadInput, "expected a tensor \"w\", got none");
}

TEST(SafetensorsReader, OpensFilesWithTensorsOfOtherTypes) {
  const testing::TempDir dir;
  WriteFile(dir / "f8.safetensors", File("{\"a\":" + Tensor("F8_E4M3", "[3]", "[0,3]") +
                                             ",\"b\":" + Tensor("U8", "[4]", "[3,7]") +
                                             ",\"c\":" + Tensor("F4", "[2]", "[7,8]") + "}",
                                         8));
  const SafetensorsReader reader = SafetensorsReader::OpenFile(dir / "f8.safetensors");
  EXPECT_EQ(reader.names(), std::vector<std::string>{"b"});
  EXPECT_EQ(reader.unreadable(),
            (std::map<std::string, std::string>{{"a", "F8_E4M3"}, {"c", "F4"}}));
  EXPECT_FALSE(reader.Contains("a"));
  EXPECT_KVC_ERROR((void)reader.Get("a"), kUnsupported,
                   "a: expected a dtype that kvc reads, got F8");
}

TEST(SafetensorsShards, RefusesATensorInTwoShards) {
  const testing::TempDir dir;
  WriteShards(dir.path(), R"({"weight_map":{"x":"a.safetensors","z":"b.safetensors"}})");
  CopyFile(dir / "a.safetensors", dir / "b.safetensors");
  EXPECT_KVC_ERROR((void)SafetensorsReader::OpenDirectory(dir.path()), kBadInput, "one shard");
}

TEST(SafetensorsShards, NamesWhatIsMissing) {
  const testing::TempDir dir;
  EXPECT_KVC_ERROR((void)SafetensorsReader::OpenDirectory(dir.path()), kBadInput, "neither");
  WriteFile(dir / "model-00001-of-00002.safetensors", "x");
  EXPECT_KVC_ERROR((void)SafetensorsReader::OpenDirectory(dir.path()), kBadInput,
                   "model-00001-of-00002.safetensors (a shard whose index is missing)");
  for (const char* name : {"consolidated.00.pth", "a.gguf", "adapter_model.bin", "config.json"}) {
    WriteFile(dir / name, "x");
  }
  EXPECT_KVC_ERROR((void)SafetensorsReader::OpenDirectory(dir.path()), kBadInput,
                   "a.gguf (a GGUF file), adapter_model.bin (an adapter's weights (LoRA)), "
                   "consolidated.00.pth (a pickle of PyTorch or Python) and 1 more; take");
  EXPECT_KVC_ERROR((void)SafetensorsReader::OpenDirectory(dir / "none"), kIo, "none");
  EXPECT_KVC_ERROR((void)SafetensorsReader::OpenFile(dir / "none"), kIo, "none");
}

}  // namespace
}  // namespace kvc
