#include "run/report/stage_page.h"

#include <algorithm>
#include <array>

#include "run/report/html.h"
#include "run/report/page_files.h"

namespace plumb::run {
namespace {

constexpr size_t kColumns = 8;
constexpr std::array<const char*, kColumns> kHeads = {"stage",  "algorithm", "steps", "time",
                                                      "before", "after",     "bar",   "state"};

std::array<std::string, kColumns> Cells(const StageRow& row) {
  return {row.name,   row.algorithm, row.steps, row.seconds,
          row.before, row.after,     row.bar,   row.state};
}

}  // namespace

std::string StagePage(const std::string& title, const std::vector<StageRow>& rows) {
  std::string out =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>" +
      EscapeHtml(title) + "</title><style>" + std::string(ReportStyle()) +
      "</style></head><body><main><h1>" + EscapeHtml(title) +
      "</h1><p>A run of stages: each begins with the language model of the one before. The pages "
      "of "
      "the stages have their curves, samples and recipes.</p><table><thead><tr>";
  for (const char* head : kHeads) out += "<th>" + std::string(head) + "</th>";
  out += "</tr></thead><tbody>";
  for (const StageRow& row : rows) {
    out += "<tr>";
    const auto cells = Cells(row);
    for (size_t i = 0; i < kColumns; ++i) {
      const std::string text = EscapeHtml(cells[i]);
      out += "<td>" +
             (i == 0 && !row.steps.empty() ? "<a href=\"" + text + "/report.html\">" + text + "</a>"
                                           : text) +
             "</td>";
    }
    out += "</tr>";
  }
  return out + "</tbody></table></main></body></html>\n";
}

std::string StageTable(const std::vector<StageRow>& rows) {
  std::array<size_t, kColumns> widths{};
  std::vector<std::array<std::string, kColumns>> lines = {
      {kHeads[0], kHeads[1], kHeads[2], kHeads[3], kHeads[4], kHeads[5], kHeads[6], kHeads[7]}};
  for (const StageRow& row : rows) lines.push_back(Cells(row));
  for (const auto& line : lines) {
    for (size_t i = 0; i < kColumns; ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string out;
  for (const auto& line : lines) {
    std::string text;
    for (size_t i = 0; i < kColumns; ++i)
      text += line[i] + std::string(widths[i] - line[i].size() + 2, ' ');
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
  return out;
}

}  // namespace plumb::run
