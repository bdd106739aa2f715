#include "run/report/report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "common/base/file.h"
#include "common/record/json_text.h"
#include "run/report/headline.h"
#include "run/report/html.h"
#include "run/report/load_map.h"
#include "run/report/page_files.h"
#include "run/report/run_charts.h"
#include "run/report/run_data.h"
#include "run/report/sample_text.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

std::string Counters(const RunData& data) {
  std::string rows;
  for (const char* kind : {"dropped", "counters"}) {
    const Json* list = FindIn(data.summary, {kind});
    if (!list || !list->is_object()) continue;
    for (const auto& [name, count] : list->items()) {
      rows += "<tr><td>" + std::string(kind == std::string_view("dropped") ? "dropped/" : "") +
              EscapeHtml(name) + "</td><td class=\"num\">" + Grouped(NumberIn(&count, 0)) +
              "</td></tr>\n";
    }
  }
  if (rows.empty()) return "";
  return "<details><summary>Counters</summary><div class=\"box\"><table><tbody>\n" + rows +
         "</tbody></table></div></details>\n";
}

std::string AllMetrics(const RunData& data) {
  if (data.columns.empty()) return "";
  std::string out =
      "<details><summary>All metrics</summary><div "
      "class=\"box\"><table><thead><tr><th>name</th><th class=\"num\">first"
      "</th><th class=\"num\">last</th><th class=\"num\">least</th><th "
      "class=\"num\">most</th></tr></thead><tbody>\n";
  for (const auto& [name, column] : data.columns) {
    out += "<tr><td>" + EscapeHtml(name) + "</td>";
    std::vector<double> finite;
    std::copy_if(column.value.begin(), column.value.end(), std::back_inserter(finite),
                 [](double v) { return std::isfinite(v); });
    if (finite.empty()) {
      out += "<td class=\"num\" colspan=\"4\">not finite</td></tr>\n";
      continue;
    }
    const auto [least, most] = std::minmax_element(finite.begin(), finite.end());
    for (const double v : {finite.front(), finite.back(), *least, *most})
      out += "<td class=\"num\">" + Format("%.5g", v) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div></details>\n";
}

std::string Curves(const RunCharts& charts) {
  if (charts.specs.empty()) return "<div id=\"charts\"></div>\n";
  std::string out =
      "<h2>Curves</h2>\n<div class=\"bar\"><label>Smoothing <input type=\"range\" id=\"smooth\" "
      "min=\"0\" max=\"30\" value=\"5\"> <span class=\"soft\" id=\"smooth-value\">5\u00a0%"
      "</span></label><span class=\"soft\">a moving average over this share of the run, in a band "
      "of one standard deviation; point at a curve to read its values</span></div>\n";
  if (!charts.quiet.empty()) {
    out += "<p class=\"soft\">0 in every step, as they should be: ";
    for (size_t i = 0; i < charts.quiet.size(); ++i)
      out += (i ? ", " : "") + EscapeHtml(charts.quiet[i]);
    out += "</p>\n";
  }
  return out +
         "<div id=\"charts\"></div>\n<noscript>The curves need JavaScript; the numbers are "
         "in metrics.jsonl.</noscript>\n";
}

}  // namespace

void WriteReport(const std::string& run_folder, const std::string& output_html) {
  RunData data = LoadRun(run_folder);
  const RunCharts charts = ChartsOf(data);
  if (charts.steps_a_bucket > 0) {
    data.notes.push_back("Long curves show means of up to " +
                         std::to_string(charts.steps_a_bucket) +
                         " steps, their areas the least and the most; metrics.jsonl has them all.");
  }

  std::string json = DumpJson({{"charts", charts.specs}});
  // no </script> inside
  for (size_t at = 0; (at = json.find('<', at)) != std::string::npos;)
    json.replace(at, 1, "\\u003c");

  const size_t slash = run_folder.find_last_not_of('/');
  std::string name = slash == std::string::npos ? run_folder : run_folder.substr(0, slash + 1);
  name = EscapeHtml(ValidUtf8(name.substr(name.rfind('/') + 1)));

  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; script-src 'unsafe-inline'\">\n<title>" +
      name + " - Plumb run</title>\n<style>";
  page += ChartsStyle();
  page += ReportStyle();
  page += "</style></head>\n<body><main>\n<h1>" + name + "</h1>\n" + HeadlineHtml(data);
  if (!data.notes.empty()) {
    page += "<ul class=\"notes\">";
    for (const auto& note : data.notes) page += "<li>" + EscapeHtml(note) + "</li>";
    page += "</ul>\n";
  }
  page += TilesHtml(data) + Curves(charts) + LoadMapHtml(data) + SamplesHtml(data);
  page += "<h2>Details</h2>\n" + FactsHtml(data) + AllMetrics(data) + Counters(data);
  if (data.config) {
    page += "<details><summary>Resolved recipe</summary><pre>" +
            EscapeHtml(ValidUtf8(*data.config)) + "</pre></details>\n";
  }
  page += "</main>\n<script type=\"application/json\" id=\"data\">" + json + "</script>\n<script>";
  page += ChartsScript();
  page += "</script>\n<script>";
  page += ReportScript();
  page += "</script>\n</body></html>\n";
  RealFileSystem().WriteFileAtomic(output_html, page);
}

}  // namespace plumb::run
