#pragma once
// Serialization of a Graph to an ONNX protobuf file.

#include <filesystem>
#include <string>

#include "export/onnx/graph.h"

namespace kvc::onnx_export {

inline constexpr int64_t kOnnxIrVersion = 10;
inline constexpr int64_t kOnnxOpset = 23;
inline constexpr int64_t kFunctionOpset = 1;

// Writes `graph` to `path`; its weights are external, in the file `data_file` beside it, at their
// offsets. Throws kInternal when the graph cannot be serialized, kIo when it cannot be written.
void WriteOnnxFile(const Graph& graph,
                   const std::string& data_file,
                   const std::string& producer_version,
                   const std::filesystem::path& path);

}  // namespace kvc::onnx_export
