#pragma once
// Reads an ONNX file and maps its external data, copying no weight.
//
// A file may be hostile. Throws kBadInput, naming the tensor or node, for a file that is not a
// ModelProto, for sizes that overflow, for tensors that do not fit their data, and for external
// data with an absolute path, with "..", through a symbolic link, to anything but a regular file,
// or out of the file's range.

#include <filesystem>

#include "runtime/load/graph.h"

namespace kvc::runtime {

// Loads a model. Throws kBadInput, kIo when a file cannot be read, kUnsupported for element and
// attribute types that kvc does not have.
[[nodiscard]] Model LoadOnnx(const std::filesystem::path& path);

}  // namespace kvc::runtime
