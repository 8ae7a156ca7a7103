#pragma once
// Reads an ONNX file and maps its external data, copying no weight.
//
// A file may be hostile. Refused with kBadInput, naming the tensor or node: what is no ModelProto,
// sizes that overflow, tensors that do not fit their data, external data with an absolute path,
// with
// "..", through a symbolic link, to anything but a regular file, or out of the file's range.

#include <filesystem>

#include "runtime/load/graph.h"

namespace kvc::runtime {

// Throws kBadInput, kIo when a file cannot be read, kUnsupported for element and attribute types
// that kvc does not have.
[[nodiscard]] Model LoadOnnx(const std::filesystem::path& path);

}  // namespace kvc::runtime
