#include "replay/datasets/rows/row_notes.h"

#include <string_view>

namespace plumb::replay {
namespace {

std::string Short(std::string_view text, size_t max = 72) {
  std::string out;
  for (const char c : text) {
    if (out.size() >= max && (static_cast<uint8_t>(c) & 0xC0) != 0x80) return out + "...";
    out.push_back(c == '\n' || c == '\r' || c == '\t' ? ' ' : c);
  }
  return out;
}

std::string Turns(const std::string& text, const std::vector<Message>& messages) {
  if (messages.empty()) return "\"" + Short(text) + "\"";
  return (messages.size() > 1 ? std::to_string(messages.size()) + " messages, last " : "") +
         messages.back().role + ": \"" + Short(messages.back().content) + "\"";
}

}  // namespace

std::string ShownRow(const ParsedRow& row) {
  const PreferenceRecord& r = row.record;
  switch (KindOf(row.form)) {
    case RowKind::kPrompts:
      return "prompt " + Turns(row.prompt.text, row.prompt.messages) +
             (row.prompt.ground_truth.empty()
                  ? ""
                  : "  ground truth \"" + Short(row.prompt.ground_truth, 40) + "\"");
    case RowKind::kPairs:
      return "prompt " + Turns(r.prompt_text, r.prompt) + "  chosen " + Turns("", r.chosen) +
             "  rejected " + Turns("", r.rejected);
    case RowKind::kLabelled:
      return "prompt " + Turns(r.prompt_text, r.prompt) + "  completion " + Turns("", r.chosen) +
             (r.desirable ? "  desirable" : "  undesirable");
    case RowKind::kDemonstrations:
      return "prompt " + Turns(r.prompt_text, r.prompt) + "  completion " + Turns("", r.chosen);
  }
  return "";
}

void RowNotes::Add(const std::vector<RowNote>& notes, const std::string& where) {
  for (const RowNote& note : notes) {
    Entry& entry = entries[note.what];
    if (entry.rows++ == 0) entry.first = note.detail.empty() ? "" : where + ": " + note.detail;
  }
}

std::vector<std::string> RowNotes::Describe() const {
  std::vector<std::string> lines;
  for (const auto& [what, entry] : entries) {
    lines.push_back(std::to_string(entry.rows) + (entry.rows == 1 ? " row: " : " rows: ") + what +
                    (entry.first.empty() ? "" : "; first " + entry.first));
  }
  return lines;
}

}  // namespace plumb::replay
