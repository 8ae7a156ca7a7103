#include "pipeline/capacity/capacity_text.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/base/counted.h"
#include "core/base/sizes.h"

namespace kvc::capacity {
namespace {

using Row = std::vector<std::string>;

// Returns the rows with columns of one width each, the first to the left, numbers to the right.
std::string Aligned(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    if (row.size() < rows[0].size()) continue;  // a sentence in place of numbers
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const Row& row : rows) {
    text += fmt::format("{:<{}}", row[0], widths[0]);
    for (size_t c = 1; c < row.size(); ++c) {
      const bool sentence = row.size() < rows[0].size();
      text += "  " + (sentence ? row[c] : fmt::format("{:>{}}", row[c], widths[c]));
    }
    text += '\n';
  }
  return text;
}

Row Heading(const Capacity& capacity) {
  Row row = {"budget", "method", "a token", "a sequence"};
  if (capacity.batch > 1) row.push_back(Counted(capacity.batch, "sequence"));
  row.emplace_back("prompt's peak");
  if (capacity.memory) row.push_back("fit into " + FormatBytes(*capacity.memory));
  if (capacity.bandwidth) row.emplace_back("tokens/s at most");
  return row;
}

Row RowOf(const CapacityLine& line, const Capacity& capacity) {
  if (!line.infeasible.empty()) return {line.budget, line.infeasible};
  const auto token = static_cast<int64_t>(std::llround(line.BytesPerToken(capacity.context)));
  Row row = {line.budget, std::string(MethodName(line.spec.method)), FormatBytes(token),
             FormatBytes(line.bytes.allocated)};
  if (capacity.batch > 1) row.push_back(FormatBytes(capacity.batch * line.bytes.allocated));
  row.push_back(FormatBytes(line.peak_prefill_bytes));
  if (line.sequences) row.push_back(std::to_string(*line.sequences));
  if (line.tokens_per_second) row.push_back(fmt::format("{:.1f}", *line.tokens_per_second));
  return row;
}

std::string ModelText(const Capacity& capacity) {
  const CapacityModel& model = capacity.model;
  int64_t windows = 0;
  for (int64_t layer = 0; layer < model.config.num_layers; ++layer) {
    if (model.config.window(layer)) ++windows;
  }
  std::string text = fmt::format("{}: {}, {}", model.name, FamilyName(model.config.family),
                                 Counted(model.config.num_layers, "layer"));
  if (windows > 0) text += fmt::format(" ({} with a window)", windows);
  text += fmt::format(", {}, keys {}\n", Counted(model.config.num_kv_heads, "key head"),
                      KeyLayoutName(model.config.keys.layout));
  text += fmt::format("weights {} in {}, cache in {}; the original caches {} for a token in {}\n",
                      FormatBytes(model.weight_bytes), ShortName(model.weights_dtype),
                      RowFormatName(model.geometry.key_format),
                      FormatBytes(OriginalBytesPerToken(model.geometry)),
                      ShortName(model.geometry.original_dtype));
  text += "sequences of " + Counted(capacity.context, "token");
  if (capacity.bandwidth) text += fmt::format(", {:.4g} GB/s", *capacity.bandwidth * 1e-9);
  return text + "\n\n";
}

}  // namespace

std::string CapacityText(const Capacity& capacity) {
  std::vector<Row> rows = {Heading(capacity)};
  for (const CapacityLine& line : capacity.lines) rows.push_back(RowOf(line, capacity));
  return ModelText(capacity) + Aligned(rows);
}

}  // namespace kvc::capacity
