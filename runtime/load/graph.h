#pragma once
// An ONNX model as plain data, which onnx_loader.cc reads and the plan is lowered from
// (docs/formats/onnx.md). Tensors borrow from the mapped files that the Model owns.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/base/dtype.h"
#include "core/io/mapped_file.h"

namespace kvc::runtime {

// An initializer, row-major, aligned to its element size.
struct Tensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> dims;
  const std::byte* data = nullptr;
  int64_t elements = 0;
  const MappedFile* file = nullptr;  // where `data` lies, `offset` bytes in it; null: no file
  int64_t offset = 0;

  template <class T>
  [[nodiscard]] const T* as() const {
    return reinterpret_cast<const T*>(data);
  }
};

using AttributeValue = std::variant<int64_t, float, std::string, std::vector<int64_t>>;

struct Node {
  std::string name;  // the first output's if the file gives none
  std::string op;
  std::string domain;
  std::vector<std::string> inputs;  // "": an absent optional input
  std::vector<std::string> outputs;
  std::map<std::string, AttributeValue> attributes;

  // Throw kBadInput naming node and attribute when it is absent (without fallback) or of another
  // type.
  [[nodiscard]] int64_t Int(const std::string& attribute) const;
  [[nodiscard]] int64_t Int(const std::string& attribute, int64_t fallback) const;
  [[nodiscard]] float Float(const std::string& attribute, float fallback) const;
  [[nodiscard]] std::string Text(const std::string& attribute, const std::string& fallback) const;
  [[nodiscard]] std::vector<int64_t> Ints(const std::string& attribute) const;
};

// A model-local function; its body is what other runtimes execute.
struct Function {
  std::string domain;
  std::string name;
  std::vector<Node> nodes;
};

struct Graph {
  std::map<std::string, int64_t> opsets;  // domain -> version
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::map<std::string, Tensor> initializers;
  std::vector<Node> nodes;
  std::vector<Function> functions;
  std::map<std::string, std::string> metadata;
};

// A graph and the memory that its tensors point into.
struct Model {
  Graph graph;
  std::map<std::string, MappedFile> files;              // external data by its relative path
  std::vector<std::unique_ptr<std::byte[]>> constants;  // initializers stored in the model itself
};

}  // namespace kvc::runtime
