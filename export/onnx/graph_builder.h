#pragma once
// A builder that collects the parts of a Graph. A node with one output is named after it.

#include <string>
#include <utility>
#include <vector>

#include "export/onnx/graph.h"

namespace kvc::onnx_export {

// Returns the number of a dtype in TensorProto.DataType, which is the value of Cast's attribute
// `to`.
[[nodiscard]] int64_t OnnxElementType(DType dtype);

class GraphBuilder {
 public:
  void AddInput(ValueInfo value) { graph_.inputs.push_back(std::move(value)); }
  void AddOutput(ValueInfo value) { graph_.outputs.push_back(std::move(value)); }
  void AddConstant(Constant constant) { graph_.constants.push_back(std::move(constant)); }
  void AddWeight(Weight weight) { graph_.weights.push_back(std::move(weight)); }
  void AddNode(Node node) { graph_.nodes.push_back(std::move(node)); }

  // Add a node and return the name of its output.
  std::string Add(const std::string& op,
                  std::vector<std::string> inputs,
                  const std::string& output,
                  std::vector<Attribute> attributes = {});
  std::string AddNamed(const std::string& op,
                       const std::string& name,
                       std::vector<std::string> inputs,
                       const std::string& output);
  std::string AddCast(const std::string& input, DType to, const std::string& output);

  [[nodiscard]] Graph Take() { return std::move(graph_); }

 private:
  Graph graph_;
};

}  // namespace kvc::onnx_export
