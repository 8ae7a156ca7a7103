#include "pipeline/report/table.h"

#include "pipeline/report/escape.h"

namespace kvc::report {
namespace {

std::string MarkdownRow(const std::vector<std::string>& cells) {
  std::string row = "|";
  for (const std::string& cell : cells) {
    row += ' ';
    for (const char c : cell) {
      if (c == '|') row += '\\';
      row += c == '\n' ? ' ' : c;
    }
    row += cell.empty() ? "|" : " |";
  }
  return row + "\n";
}

std::string HtmlRow(const std::vector<std::string>& cells, const std::string& tag) {
  std::string row = "<tr>";
  for (const std::string& text : cells) {
    row += "<" + tag + ">" + EscapeHtml(text) + "</" + tag + ">";
  }
  return row + "</tr>\n";
}

}  // namespace

std::string ToMarkdown(const Table& table) {
  if (table.rows.empty()) return {};
  std::string text = MarkdownRow(table.heading) + "|";
  for (size_t i = 0; i < table.heading.size(); ++i) text += "---|";
  text += "\n";
  for (const auto& row : table.rows) text += MarkdownRow(row);
  return text;
}

std::string ToHtml(const Table& table) {
  if (table.rows.empty()) return {};
  std::string text = "<table>\n" + HtmlRow(table.heading, "th");
  for (const auto& row : table.rows) text += HtmlRow(row, "td");
  return text + "</table>\n";
}

}  // namespace kvc::report
