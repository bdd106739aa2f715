#include "run/report/load_map.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "run/report/html.h"

namespace plumb::run {
namespace {

constexpr size_t kColumns = 100;
constexpr int kWidth = 700, kHeight = 22, kLeft = 70;

// Layer -> its column of metrics, in the order of the model.
std::map<int64_t, const MetricColumn*> Layers(const RunData& data) {
  constexpr std::string_view kBegin = "moe/layer_", kEnd = "/expert_load_max_over_mean";
  std::map<int64_t, const MetricColumn*> out;
  for (const auto& [name, column] : data.columns) {
    if (!name.starts_with(kBegin) || !name.ends_with(kEnd) || column.step.empty()) continue;
    out[std::strtoll(name.c_str() + kBegin.size(), nullptr, 10)] = &column;
  }
  return out;
}

struct Cell {
  int64_t first = 0, last = 0;  // steps
  double load = 0;              // mean of them; NaN: none was finite
};

std::vector<Cell> CellsOf(const MetricColumn& column) {
  const size_t n = column.step.size(), cells = std::min(n, kColumns);
  std::vector<Cell> out;
  for (size_t c = 0; c < cells; ++c) {
    const size_t begin = c * n / cells, end = (c + 1) * n / cells;
    double sum = 0;
    int64_t finite = 0;
    for (size_t i = begin; i < end; ++i) {
      if (!std::isfinite(column.value[i])) continue;
      sum += column.value[i];
      ++finite;
    }
    out.push_back({column.step[begin], column.step[end - 1],
                   finite > 0 ? sum / static_cast<double>(finite) : std::nan("")});
  }
  return out;
}

}  // namespace

std::string LoadMapHtml(const RunData& data) {
  const auto layers = Layers(data);
  if (layers.empty()) return "";
  std::map<int64_t, std::vector<Cell>> rows;
  double most = 1;
  for (const auto& [layer, column] : layers) {
    rows[layer] = CellsOf(*column);
    for (const Cell& cell : rows[layer]) most = std::fmax(most, cell.load);
  }
  std::string out =
      "<h2>Load of experts</h2>\n<p class=\"soft\">largest load of an expert over the mean one, by "
      "layer and step: white is 1.00, even; the darkest is " +
      Format("%.2f", most) + "</p>\n<div class=\"box\"><svg id=\"load-map\" role=\"img\" width=\"" +
      std::to_string(kLeft + kWidth) + "\" height=\"" +
      std::to_string(kHeight * static_cast<int>(rows.size())) +
      "\" aria-label=\"load of experts by layer and step\">\n";
  int y = 0;
  for (const auto& [layer, cells] : rows) {
    out += "<text x=\"4\" y=\"" + std::to_string(y + 15) +
           "\" font-size=\"12\" fill=\"currentColor\">layer " + std::to_string(layer) + "</text>";
    const double width = static_cast<double>(kWidth) / static_cast<double>(cells.size());
    for (size_t c = 0; c < cells.size(); ++c) {
      const Cell& cell = cells[c];
      const std::string steps = cell.first == cell.last ? "step " + std::to_string(cell.first)
                                                        : "steps " + std::to_string(cell.first) +
                                                              " to " + std::to_string(cell.last);
      const double dark = most > 1 && std::isfinite(cell.load) ? (cell.load - 1) / (most - 1) : 0;
      out += "<rect x=\"" + Format("%.1f", kLeft + width * static_cast<double>(c)) + "\" y=\"" +
             std::to_string(y) + "\" width=\"" + Format("%.1f", width) + "\" height=\"" +
             std::to_string(kHeight - 2) + "\" fill=\"var(--s1)\" fill-opacity=\"" +
             Format("%.3f", dark) + "\"><title>layer " + std::to_string(layer) + ", " + steps +
             ": " + (std::isfinite(cell.load) ? Format("%.3f", cell.load) : "not finite") +
             "</title></rect>";
    }
    out += "\n";
    y += kHeight;
  }
  return out + "</svg></div>\n";
}

}  // namespace plumb::run
