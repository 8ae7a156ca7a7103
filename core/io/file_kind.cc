#include "core/io/file_kind.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/base/error.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kConvert = "convert the weights to safetensors first";

constexpr FileKind kLfsPointer = {"a Git LFS pointer", "fetch the file itself with git lfs pull"};
constexpr FileKind kHtml = {"an HTML page",
                            "download the file again; a login or an error page came instead"};
constexpr FileKind kZip = {"a zip archive, as PyTorch writes a pickle (.bin, .pt)", kConvert};
constexpr FileKind kPickle = {"a pickle of PyTorch or Python", kConvert};
constexpr FileKind kGguf = {"a GGUF file", "take the model's original safetensors"};
constexpr FileKind kHdf5 = {"an HDF5 file, as Keras writes it", kConvert};
constexpr FileKind kGzip = {"a gzip archive", "unpack it first"};
constexpr FileKind kShard = {"a shard whose index is missing",
                             "fetch model.safetensors.index.json as well"};
constexpr FileKind kOtherName = {"safetensors under another name",
                                 "rename it to model.safetensors, if it is the whole model"};
constexpr FileKind kAdapter = {"an adapter's weights (LoRA)",
                               "merge the adapter into its base model first"};

struct Signature {
  std::string_view begin;
  FileKind kind;
};

using namespace std::string_view_literals;
constexpr std::array<Signature, 5> kSignatures = {{
    {"version https://git-lfs.github.com/"sv, kLfsPointer},
    {"PK\x03\x04"sv, kZip},
    {"GGUF"sv, kGguf},
    {"\x89HDF\r\n"sv, kHdf5},
    {"\x1f\x8b\x08"sv, kGzip},
}};

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool StartsWithIgnoringCase(std::string_view text, std::string_view begin) {
  return text.size() >= begin.size() && std::equal(begin.begin(), begin.end(), text.begin(),
                                                   [](char a, char b) { return a == Lower(b); });
}

bool IsHtml(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  text.remove_prefix(std::min(text.size(), text.find_first_not_of(" \t\r\n")));
  return StartsWithIgnoringCase(text, "<!doctype html") || StartsWithIgnoringCase(text, "<html") ||
         StartsWithIgnoringCase(text, "<head");
}

// Protocols 2 to 5 begin with 0x80 and their number; the next byte opens a frame, a dictionary, a
// module's name or an integer (PyTorch's magic number).
bool IsPickle(std::string_view text) {
  return text.size() > 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5 &&
         "\x95}(c\x8a]"sv.find(text[2]) != std::string_view::npos;
}

std::optional<FileKind> KindOfName(const std::string& name) {
  const auto ends = [&](std::string_view end) { return name.ends_with(end); };
  if (ends(".gguf")) return kGguf;
  if (name.starts_with("adapter_model.")) return kAdapter;
  if (ends(".pth") || ends(".pt") || ends(".ckpt")) return kPickle;
  if (ends(".bin") && name.starts_with("pytorch_model")) return kPickle;
  if (ends(".h5")) return kHdf5;
  if (!ends(".safetensors")) return std::nullopt;
  return name.find("-of-") != std::string::npos ? kShard : kOtherName;
}

}  // namespace

std::optional<FileKind> KindOfBytes(std::span<const std::byte> bytes) {
  constexpr size_t kLooked = 512;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()),
                              std::min(bytes.size(), kLooked));
  for (const Signature& signature : kSignatures) {
    if (text.starts_with(signature.begin)) return signature.kind;
  }
  if (IsHtml(text)) return kHtml;
  if (IsPickle(text)) return kPickle;
  return std::nullopt;
}

void RefuseKnownKind(std::span<const std::byte> bytes,
                     const std::string& origin,
                     std::string_view expected) {
  const std::optional<FileKind> kind = KindOfBytes(bytes);
  if (!kind) return;
  KVC_THROW(kBadInput, "{}: expected {}, got {}; {}", origin, expected, kind->name, kind->fix);
}

void RefuseKnownKind(std::string_view text, const std::string& origin, std::string_view expected) {
  RefuseKnownKind(std::as_bytes(std::span(text)), origin, expected);
}

std::string ForeignWeights(const fs::path& directory) {
  constexpr size_t kNamed = 3;
  std::vector<std::pair<std::string, FileKind>> found;
  std::error_code error;
  for (auto it = fs::directory_iterator(directory, error); !error && it != fs::end(it);
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (const auto kind = KindOfName(name)) found.emplace_back(name, *kind);
  }
  std::ranges::sort(found, {}, [](const auto& file) { return file.first; });
  std::string text;
  for (size_t i = 0; i < std::min(kNamed, found.size()); ++i) {
    text += (i == 0 ? "" : ", ") + found[i].first + " (" + std::string(found[i].second.name) + ")";
  }
  if (found.size() > kNamed) text += " and " + std::to_string(found.size() - kNamed) + " more";
  if (!found.empty()) text += "; " + std::string(found[0].second.fix);
  return text;
}

}  // namespace kvc
