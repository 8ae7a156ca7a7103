#pragma once
// A builder for the nodes of a model-local function.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "export/onnx/graph_builder.h"

namespace kvc::onnx_export {

class FunctionBody : public GraphBuilder {
 public:
  // Adds an int64 constant that serves as a shape.
  void AddShape(const std::string& name, std::vector<int64_t> values) {
    Add("Constant", {}, name, {{"value_ints", std::move(values), ""}});
  }
  void AddReshape(const std::string& input, std::vector<int64_t> shape, const std::string& output) {
    AddShape(output + "_shape", std::move(shape));
    Add("Reshape", {input, output + "_shape"}, output);
  }
  void AddTranspose(const std::string& input,
                    std::vector<int64_t> order,
                    const std::string& output) {
    Add("Transpose", {input}, output, {{"perm", std::move(order), ""}});
  }
  // Splits [B, T, count*W] into heads: [B, count, T, W].
  void AddSplitHeads(const std::string& input, int64_t count, const std::string& output) {
    AddReshape(input, {0, 0, count, -1}, output + "_split");
    AddTranspose(output + "_split", {0, 2, 1, 3}, output);
  }
};

}  // namespace kvc::onnx_export
