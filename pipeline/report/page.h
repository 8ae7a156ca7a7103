#pragma once
// A report's page: one HTML file that needs nothing else, put together block by block. Text is
// escaped here. Tables, heat maps and numbers are HTML; charts are one block of JSON, drawn by
// Chart.js, which stands in the file. A content security policy forbids the network and every
// script but these two.

#include <string>
#include <vector>

#include "pipeline/report/chart.h"
#include "pipeline/report/heat_map.h"
#include "pipeline/report/table.h"

namespace kvc::report {

// A number that is read first: what it is, its value, what it is compared with.
struct Tile {
  std::string name, value, note;
  enum class Tone { kPlain, kGood, kBad } tone = Tone::kPlain;
};

class Page {
 public:
  // Begins with <h1>; the lines say what the page is of.
  Page(const std::string& heading, const std::vector<std::string>& lines);

  void AddVerdict(const std::string& sentence, const std::vector<Tile>& tiles);
  // A heading of a section; it is left out when nothing follows before the next one.
  void AddHeading(const std::string& text);
  void AddParagraph(const std::string& text);
  // Nothing without rows. A folded table is opened by a click on its name.
  void AddTable(const Table& table);
  void AddFolded(const std::string& name, const Table& table);
  void AddHeatMap(const HeatMap& map);
  // Nothing without points; a number in its place when there is only one.
  void AddChart(const Chart& chart);

  [[nodiscard]] std::string ToHtml() const;

 private:
  void Add(const std::string& html);
  void AddFigure(const std::string& html);
  void CloseGrid();

  std::string body_;
  std::string heading_;  // the last one, while nothing has followed
  bool in_grid_ = false;
  std::vector<Chart> charts_;
};

}  // namespace kvc::report
