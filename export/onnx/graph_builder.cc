#include "export/onnx/graph_builder.h"

#include "core/base/error.h"

namespace kvc::onnx_export {

int64_t OnnxElementType(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 1;
    case DType::kU8:
      return 2;
    case DType::kI8:
      return 3;
    case DType::kI16:
      return 5;
    case DType::kI32:
      return 6;
    case DType::kI64:
      return 7;
    case DType::kBool:
      return 9;
    case DType::kF16:
      return 10;
    case DType::kF64:
      return 11;
    case DType::kBF16:
      return 16;
  }
  KVC_THROW(kInternal, "onnx: unknown dtype {}", static_cast<int>(dtype));
}

std::string GraphBuilder::Add(const std::string& op,
                              std::vector<std::string> inputs,
                              const std::string& output,
                              std::vector<Attribute> attributes) {
  AddNode({op, "", output, std::move(inputs), {output}, std::move(attributes)});
  return output;
}

std::string GraphBuilder::AddNamed(const std::string& op,
                                   const std::string& name,
                                   std::vector<std::string> inputs,
                                   const std::string& output) {
  AddNode({op, "", name, std::move(inputs), {output}, {}});
  return output;
}

std::string GraphBuilder::AddCast(const std::string& input, DType to, const std::string& output) {
  return Add("Cast", {input}, output, {{"to", OnnxElementType(to), ""}});
}

}  // namespace kvc::onnx_export
