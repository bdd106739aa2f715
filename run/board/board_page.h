// The files of the board's page (run/board/page), as they are in the program.
//
// Purpose: constants; the build writes all but BoardPage. Thread safety: safe. Nothing in them
// loads anything from another place.
#pragma once

#include <string_view>
#include <vector>

namespace plumb::run {

struct PageFile {
  std::string_view path;  // "/board.js"; the page itself is "/"
  std::string_view type;  // of the content
  std::string_view text;
};

const std::vector<PageFile>& BoardPage();

std::string_view BoardIndex();
std::string_view BoardStyle();
std::string_view BoardIcon();
std::string_view BoardScript();
std::string_view BoardChartsScript();  // run/report/charts.js: one drawing of curves for all pages
std::string_view BoardChartsStyle();
std::string_view BoardPartsScript();
std::string_view BoardCurvesScript();
std::string_view BoardSamplesScript();
std::string_view BoardStoreScript();
std::string_view BoardViewsScript();

}  // namespace plumb::run
