#include "run/board/board_page.h"

namespace plumb::run {

const std::vector<PageFile>& BoardPage() {
  static constexpr std::string_view kScript = "text/javascript; charset=utf-8";
  static const std::vector<PageFile> files = {
      {"/", "text/html; charset=utf-8", BoardIndex()},
      {"/board.css", "text/css; charset=utf-8", BoardStyle()},
      {"/icon.svg", "image/svg+xml; charset=utf-8", BoardIcon()},
      {"/board.js", kScript, BoardScript()},
      {"/charts.css", "text/css; charset=utf-8", BoardChartsStyle()},
      {"/charts.js", kScript, BoardChartsScript()},
      {"/parts.js", kScript, BoardPartsScript()},
      {"/curves.js", kScript, BoardCurvesScript()},
      {"/samples.js", kScript, BoardSamplesScript()},
      {"/store.js", kScript, BoardStoreScript()},
      {"/views.js", kScript, BoardViewsScript()}};
  return files;
}

}  // namespace plumb::run
