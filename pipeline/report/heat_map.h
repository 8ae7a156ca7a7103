#pragma once
// Heat maps as HTML tables of coloured cells: they are read without scripts, printed and copied.

#include <string>
#include <vector>

namespace kvc::report {

struct HeatMap {
  std::string title;
  std::string row_name, column_name;        // of one row and one column: "group", "layer"
  std::vector<std::string> rows, columns;   // labels; as many as values has
  std::vector<std::vector<double>> values;  // [rows][columns]; NaN: no value
  double most = 1.0;                        // the value of the strongest colour; 0 is the weakest
  bool share = false;                       // values are written in percent
  std::string note;                         // below the map
};

// Returns a <figure>. Each cell has its labels and value as a tooltip, and the value as text where
// there are few columns. Columns are labelled in steps of 1, 2, 5, ... so that labels do not meet.
// Empty without values.
[[nodiscard]] std::string ToHtml(const HeatMap& map);

}  // namespace kvc::report
