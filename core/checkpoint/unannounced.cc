#include "core/checkpoint/unannounced.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <string_view>
#include <vector>

namespace kvc {
namespace {

// The layer's number in a tensor's name: the first part between dots that is a number.
struct LayerPart {
  size_t begin = std::string::npos;  // npos: the name has none
  size_t end = 0;
  int64_t layer = 0;
};

LayerPart FindLayer(std::string_view name) {
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    LayerPart part{begin, end, 0};
    const auto [stop, error] = std::from_chars(name.data() + begin, name.data() + end, part.layer);
    if (error == std::errc() && stop == name.data() + end) return part;
    begin = end + 1;
  }
  return {};
}

bool IsComputedBuffer(std::string_view name) {
  constexpr std::array<std::string_view, 4> kEnds = {
      ".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attn.rotary_emb.inv_freq"};
  return std::ranges::any_of(kEnds, [&](std::string_view end) { return name.ends_with(end); });
}

std::string PatternOf(const std::string& name, int64_t num_layers) {
  const LayerPart part = FindLayer(name);
  if (part.begin == std::string::npos) return name;
  if (part.layer >= num_layers) return name.substr(0, part.end) + ".*";
  return name.substr(0, part.begin) + "*" + name.substr(part.end);
}

// The first of the patterns, in the order of their names.
std::string ListPatterns(const std::vector<std::string>& names, int64_t num_layers) {
  constexpr size_t kNamed = 12;
  std::map<std::string, int64_t> patterns;
  for (const std::string& name : names) ++patterns[PatternOf(name, num_layers)];
  std::string text;
  size_t named = 0;
  for (const auto& [pattern, count] : patterns) {
    if (named++ == kNamed) break;
    text += (text.empty() ? "" : ", ") + pattern;
    if (count > 1) text += " (" + std::to_string(count) + ")";
  }
  if (patterns.size() > kNamed) {
    text += " and " + std::to_string(patterns.size() - kNamed) + " more";
  }
  return text;
}

}  // namespace

std::string DescribeUnannounced(const SafetensorsReader& tensors,
                                const std::set<std::string>& used,
                                int64_t num_layers) {
  std::vector<std::string> left_out;
  const auto add = [&](const std::string& name) {
    if (!used.contains(name) && !IsComputedBuffer(name)) left_out.push_back(name);
  };
  for (const std::string& name : tensors.names()) add(name);
  for (const auto& [name, dtype] : tensors.unreadable()) add(name);
  std::vector<std::string> missing;
  for (const std::string& name : tensors.missing()) {
    if (!tensors.Contains(name)) missing.push_back(name);
  }
  std::string text;
  if (!left_out.empty()) {
    text = std::to_string(left_out.size()) +
           " tensors that config.json does not announce are left out: " +
           ListPatterns(left_out, num_layers);
  }
  if (!missing.empty()) {
    text += (text.empty() ? "" : "; ") +
            std::string("the index names tensors that no file holds: ") +
            ListPatterns(missing, num_layers);
  }
  return text;
}

}  // namespace kvc
