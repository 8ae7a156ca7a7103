#pragma once
// An ONNX model as plain data, which the graph builders fill in and onnx_file.cc serializes. It
// mirrors the parts of ModelProto that kvc writes, without protobuf's types.

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "core/base/dtype.h"
#include "core/checkpoint/checkpoint.h"

namespace kvc::onnx_export {

// Element types of a graph: of the stored matrices, and of the past and present keys and values.
struct GraphTypes {
  DType weights = DType::kF32;
  DType cache = DType::kF32;
};

// A node's attribute. `reference` (inside a function): take the value of the function's attribute
// of that name; `value` then only gives the type.
struct Attribute {
  std::string name;
  std::variant<int64_t, float, std::string, std::vector<int64_t>> value;
  std::string reference;
};

// A node. Inputs and outputs are value names; "" is an absent optional input.
struct Node {
  std::string op;
  std::string domain;  // "" or kFunctionDomain
  std::string name;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::vector<Attribute> attributes;
};

// A graph input or output, or a value inside. A dimension is a number or a named parameter.
struct ValueInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::variant<int64_t, std::string>> dims;
};

// A small int64 tensor stored in the model itself; without dims it is a scalar.
struct Constant {
  std::string name;
  std::vector<int64_t> dims;
  std::vector<int64_t> values;
};

// Source of a weight's elements.
enum class WeightKind {
  kPlain,       // the checkpoint's role as it is
  kPaddedRows,  // `ranks[i]` rows for each group, zero rows up to `stride`
  kRebuild,     // the role's [rows, stride] matrix, columns beyond a group's rank set to zero
  kRopeCos,     // rotation tables [rows, r/2], from the configuration
  kRopeSin,
};

// An initializer in the external data file.
struct Weight {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> dims;
  WeightKind kind = WeightKind::kPlain;
  Role role = Role::kEmbedding;
  int64_t layer = -1;
  std::vector<int64_t> ranks;  // kPaddedRows: one for each block of rows; kRebuild: for each group
  int64_t stride = 0;      // rows (kPaddedRows) or columns (kRebuild) of a block, padding included
  bool unit_rows = false;  // a latent's factors: in the coordinates of MakeUnitRows
  int64_t offset = 0;      // in the data file, set by PlaceWeights
  int64_t bytes = 0;
};

// A model-local function: inputs, outputs, attribute names and body.
struct Function {
  std::string name;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::vector<std::string> attributes;
  std::vector<Node> nodes;
};

struct Graph {
  std::vector<ValueInfo> inputs;
  std::vector<ValueInfo> outputs;
  std::vector<ValueInfo> values;  // results of nodes that are no outputs (InferValues)
  std::vector<Constant> constants;
  std::vector<Weight> weights;
  std::vector<Node> nodes;
  std::vector<Function> functions;
  std::map<std::string, std::string> metadata;
};

inline constexpr char kFunctionDomain[] = "com.kvc";
inline constexpr char kAttentionFunction[] = "CompressedAttention";
inline constexpr char kLatentFunction[] = "CompressedLatentAttention";
inline constexpr char kPlainLatentFunction[] = "CompressedPlainLatentAttention";
inline constexpr char kProjectionFunction[] = "HeadProjection";
inline constexpr char kPairFunction[] = "PairRotation";
inline constexpr char kRowFunction[] = "RotationRows";

}  // namespace kvc::onnx_export
