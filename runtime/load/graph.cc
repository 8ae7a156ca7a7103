#include "runtime/load/graph.h"

#include "core/base/error.h"

namespace kvc::runtime {
namespace {

template <class T>
const T* Find(const Node& node, const std::string& attribute, const char* type) {
  const auto it = node.attributes.find(attribute);
  if (it == node.attributes.end()) return nullptr;
  const T* value = std::get_if<T>(&it->second);
  KVC_CHECK(value != nullptr, kBadInput, "node \"{}\": attribute {}: expected {}, got another type",
            node.name, attribute, type);
  return value;
}

template <class T>
T Need(const Node& node, const std::string& attribute, const char* type) {
  const T* value = Find<T>(node, attribute, type);
  KVC_CHECK(value != nullptr, kBadInput, "node \"{}\": expected attribute {}, got none", node.name,
            attribute);
  return *value;
}

}  // namespace

int64_t Node::Int(const std::string& attribute) const {
  return Need<int64_t>(*this, attribute, "an integer");
}

int64_t Node::Int(const std::string& attribute, int64_t fallback) const {
  const auto* value = Find<int64_t>(*this, attribute, "an integer");
  return value != nullptr ? *value : fallback;
}

float Node::Float(const std::string& attribute, float fallback) const {
  const auto* value = Find<float>(*this, attribute, "a float");
  return value != nullptr ? *value : fallback;
}

std::string Node::Text(const std::string& attribute, const std::string& fallback) const {
  const auto* value = Find<std::string>(*this, attribute, "a string");
  return value != nullptr ? *value : fallback;
}

std::vector<int64_t> Node::Ints(const std::string& attribute) const {
  return Need<std::vector<int64_t>>(*this, attribute, "integers");
}

}  // namespace kvc::runtime
