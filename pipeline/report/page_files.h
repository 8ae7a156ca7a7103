#pragma once
// The files of page/ and Chart.js, embedded by the build.

#include <string_view>

namespace kvc::report {

extern const std::string_view kPageStyle;       // page/page.css
extern const std::string_view kPageScript;      // page/page.js
extern const std::string_view kChartJs;         // chart.min.js of Debian's libjs-chart.js
extern const std::string_view kChartJsLicence;  // its copyright and licence

}  // namespace kvc::report
