#pragma once
// Names the kinds of file that people have where a checkpoint's file should be: a Git LFS pointer,
// an HTML page, a pickle of PyTorch, a GGUF. A reader that finds no file of its own kind asks, so
// that its message says what is there and how to get the right file.

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kvc {

struct FileKind {
  std::string_view name;  // "an HTML page"
  std::string_view fix;   // "download it again; ..."
};

// The kind of a file by its first bytes; none for a kind that is not known here.
[[nodiscard]] std::optional<FileKind> KindOfBytes(std::span<const std::byte> bytes);
// Throws kBadInput, naming `origin`, what was `expected` ("a safetensors file") and the kind, when
// the kind of `bytes` is known.
void RefuseKnownKind(std::span<const std::byte> bytes,
                     const std::string& origin,
                     std::string_view expected);
void RefuseKnownKind(std::string_view text, const std::string& origin, std::string_view expected);
// Names the weights in a directory that are not what kvc reads, by their file names: "model.gguf (a
// GGUF file)". Empty: none. Files come in the order of their names; the first three are named.
[[nodiscard]] std::string ForeignWeights(const std::filesystem::path& directory);

}  // namespace kvc
