// The script and style files of this folder, as they were when the program was built.
//
// Purpose: a page is one file that opens offline, years later, and a program needs no folder beside
// it. charts.js and charts.css draw curves and serve any page (the board has them too); report.js
// and report.css are the report's.
// Thread safety: constants; they live as long as the program.
#pragma once

#include <string_view>

namespace plumb::run {

std::string_view ChartsScript();
std::string_view ChartsStyle();
std::string_view ReportScript();
std::string_view ReportStyle();

}  // namespace plumb::run
