#pragma once
// A table of text, written as Markdown or HTML.

#include <string>
#include <vector>

namespace kvc::report {

struct Table {
  std::vector<std::string> heading;
  std::vector<std::vector<std::string>> rows;  // a row may end early
};

// Returns a Markdown table; '|' in cells is escaped. Empty without rows.
[[nodiscard]] std::string ToMarkdown(const Table& table);
// Returns a <table>; cells are escaped. Empty without rows.
[[nodiscard]] std::string ToHtml(const Table& table);

}  // namespace kvc::report
