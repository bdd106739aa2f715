#include "replay/datasets/exporter.h"

#include <limits>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "replay/datasets/line_writer.h"
#include "replay/datasets/rows/end_token.h"
#include "replay/datasets/rows/row_columns.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/datasets/rows/row_source.h"

namespace plumb::replay {
namespace {

constexpr uint64_t kPiece = 1024;
constexpr size_t kMaxExamples = 5;

// Reads rows as an import of the file would: the first one fixes the form.
class Mirror {
 public:
  // What `text` becomes, or why nothing. A candidate fixes the form only once it is kept.
  std::optional<ParsedRow> Read(std::string text, std::string& why) {
    if (!parser_ || parser_->form() != form_) {
      parser_ = std::make_unique<RowParser>(
          RowParserOptions{.map = {{"weight", "weight"}}, .form = form_, .convert_numbers = false});
    }
    text.reserve(text.size() + RowSource::kPadding);
    try {
      return parser_->Parse(text);
    } catch (const RowProblem& problem) {
      why = problem.reason + ": " + problem.detail;
      return std::nullopt;
    }
  }
  void Keep(const ParsedRow& row) {
    if (!form_) form_ = row.form;
  }

 private:
  std::optional<RowForm> form_;
  std::unique_ptr<RowParser> parser_;
};

std::map<std::string, std::string> ColumnsOf(const std::string& extra_json) {
  std::map<std::string, std::string> columns;
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (extra_json.empty() || parser.parse(extra_json).get(object) != simdjson::SUCCESS)
    return columns;
  for (const auto [name, value] : object) columns[std::string(name)] = Canonical(value);
  return columns;
}

// Which of the other columns says something else; the order of keys says nothing.
std::string DifferentColumn(const std::string& stored, const std::string& read) {
  if (stored == read) return "";
  const auto before = ColumnsOf(stored), after = ColumnsOf(read);
  for (const auto& [name, value] : before) {
    const auto found = after.find(name);
    if (found == after.end()) return "the column '" + name + "' is read as a part of the row";
    if (found->second != value) return "the column '" + name + "' differs";
  }
  for (const auto& [name, value] : after) {
    if (!before.contains(name)) return "the column '" + name + "' is new";
  }
  return "";
}

// Empty: equal. Where a record lies in the store is not part of what it says, nor are its tokens,
// which are made again.
std::string Difference(const Prompt& stored, const ParsedRow& row) {
  const Prompt& read = row.prompt;
  if (KindOf(row.form) != RowKind::kPrompts)
    return std::string("is read as ") + KindName(KindOf(row.form));
  if (read.text != stored.text || read.messages != stored.messages) return "the prompt differs";
  if (read.ground_truth != stored.ground_truth) return "the ground truth differs";
  if (read.weight != stored.weight) return "the weight differs";
  return DifferentColumn(stored.extra_json, read.extra_json);
}

std::string Difference(const PreferenceRecord& stored, const ParsedRow& row) {
  const PreferenceRecord& read = row.record;
  if (KindOf(row.form) == RowKind::kPrompts || read.kind != stored.kind)
    return std::string("is read as ") + KindName(KindOf(row.form));
  if (read.prompt_text != stored.prompt_text || read.prompt != stored.prompt)
    return "the prompt differs";
  if (read.chosen != stored.chosen || read.rejected != stored.rejected) return "the answers differ";
  if (read.desirable != stored.desirable) return "the label differs";
  if (read.has_margin != stored.has_margin || read.margin != stored.margin)
    return "the margin differs";
  if (read.weight != stored.weight) return "the weight differs";
  return DifferentColumn(stored.extra_json, read.extra_json);
}

class Export {
 public:
  Export(const Store& store, const ExportRequest& request)
      : store_(store),
        request_(request),
        out_(request.out, request.files ? *request.files : RealFileSystem()) {}

  ExportReport Run(ExportRows rows) {
    report_.rows = rows;
    const bool whole = rows == ExportRows::kPrompts       ? Prompts()
                       : rows == ExportRows::kPreferences ? Preferences()
                                                          : Rollouts();
    if (!whole) {
      report_.stopped = true;
      return report_;
    }
    int64_t left_out = 0;
    for (const auto& [reason, n] : report_.left_out) left_out += n;
    PLUMB_CHECK(report_.read == report_.written + left_out, report_.Describe());
    if (report_.written == 0) {
      throw Error(ErrorCode::kNotFound, "nothing to export: " + report_.Describe(), store_.path());
    }
    out_.Finish();
    report_.bytes = out_.bytes();
    if (request_.progress) request_.progress(1, report_.read);
    return report_;
  }

 private:
  bool Prompts() {
    const uint64_t rows = store_.PromptCount(request_.dataset);
    for (uint64_t row = 0; row < rows; ++row) {
      const Prompt prompt = store_.ReadPrompt(request_.dataset, row);
      if (!prompt.tokens.empty()) ++report_.notes["token_lists_left_out"];
      Row(prompt, row);
      if (!Pause(row + 1, rows)) return false;
    }
    return true;
  }

  bool Preferences() {
    const uint64_t rows = store_.PreferenceCount(request_.dataset);
    for (uint64_t first = 0; first < rows; first += kPiece) {
      for (PreferenceRecord& record : store_.ReadPreferences(request_.dataset, first, kPiece)) {
        if (!record.prompt_tokens.empty()) CutEnds(record);
        Row(record, record.row);
      }
      if (!Pause(std::min(first + kPiece, rows), rows)) return false;
    }
    return true;
  }

  bool Rollouts() {
    for (const Purpose purpose : {Purpose::kTrain, Purpose::kEval}) {
      const auto ids = store_.Ids(purpose, 0, std::numeric_limits<uint64_t>::max());
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto stored = store_.Read(purpose, ids[i]);
        if (stored) Group(*stored);  // else trimmed since
        if (!Pause(i + 1, ids.size())) return false;
      }
    }
    return true;
  }

  // Of a record out of rollouts.
  void CutEnds(PreferenceRecord& record) {
    for (auto* answer : {&record.chosen, &record.rejected}) {
      if (!answer->empty() && CutEndToken(answer->back().content, request_.end_tokens))
        ++report_.notes["end_tokens_left_out"];
    }
  }

  void Group(const StoredGroup& stored) {
    ++report_.read;
    const auto leave = [&](const char* reason) { ++report_.left_out[reason]; };
    if (stored.kind == GroupKind::kDropped) return leave("dropped_groups");
    if (!request_.dataset.empty() && stored.group.lease.prompt.dataset != request_.dataset)
      return leave("of_other_datasets");
    for (const ExportCandidate& row : RolloutRows(stored.group, request_.form, request_.end_tokens))
      Write(row);
    ++report_.written;
  }

  template <class Record>
  void Row(const Record& record, uint64_t row) {
    ++report_.read;
    const auto candidates = Candidates(record, request_.form);
    if (candidates.empty()) {
      ++report_.left_out["only_tokens"];
      return;
    }
    std::string why;
    for (const ExportCandidate& candidate : candidates) {
      std::string problem;
      const auto read = mirror_.Read(candidate.text, problem);
      if (read) problem = Difference(record, *read);
      if (problem.empty()) {
        mirror_.Keep(*read);
        ++report_.same;
        ++report_.written;
        return Write(candidate);
      }
      if (why.empty()) why = problem;
    }
    if (report_.examples.size() < kMaxExamples)
      report_.examples.push_back("row " + std::to_string(row) + ": " + why);
    std::string ignored;
    if (const auto read = mirror_.Read(candidates.front().text, ignored)) mirror_.Keep(*read);
    ++report_.written;
    Write(candidates.front());
  }

  void Write(const ExportCandidate& row) {
    out_.Add(row.text);
    ++report_.lines;
    for (const auto& [what, n] : row.notes) report_.notes[what] += n;
  }

  bool Pause(uint64_t done, uint64_t all) {
    if (!request_.progress || done % kPiece != 0) return true;
    return request_.progress(static_cast<double>(done) / static_cast<double>(all), report_.read);
  }

  const Store& store_;
  const ExportRequest& request_;
  LineWriter out_;
  Mirror mirror_;
  ExportReport report_;
};

std::string Known(const Store& store) {
  std::string names;
  for (const auto& [name, rows] : store.Datasets())
    names += (names.empty() ? "" : ", ") + name + " (prompts)";
  for (const auto& [name, rows] : store.PreferenceDatasets())
    names += (names.empty() ? "" : ", ") + name + " (preferences)";
  return names.empty() ? "none" : names;
}

}  // namespace

const char* RowsName(ExportRows rows) {
  switch (rows) {
    case ExportRows::kAuto: return "auto";
    case ExportRows::kPrompts: return "prompts";
    case ExportRows::kPreferences: return "preferences";
    case ExportRows::kRollouts: return "rollouts";
  }
  return "unknown";
}

std::optional<ExportRows> ExportRowsOfName(std::string_view name) {
  for (const auto rows :
       {ExportRows::kAuto, ExportRows::kPrompts, ExportRows::kPreferences, ExportRows::kRollouts}) {
    if (name == RowsName(rows)) return rows;
  }
  return std::nullopt;
}

std::string ExportReport::Describe() const {
  std::string text = "read " + std::to_string(read) + " = written " + std::to_string(written);
  for (const auto& [reason, n] : left_out) text += " + " + std::to_string(n) + " " + reason;
  return text;
}

ExportReport ExportDataset(const Store& store, const ExportRequest& request) {
  ExportRows rows = request.rows;
  const bool prompts = store.PromptCount(request.dataset) > 0,
             preferences = store.PreferenceCount(request.dataset) > 0;
  if (rows == ExportRows::kAuto && prompts && preferences) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "'" + request.dataset +
            "' names prompts and preferences: say which with --rows prompts or --rows preferences",
        store.path());
  }
  if (rows == ExportRows::kAuto)
    rows = preferences ? ExportRows::kPreferences : ExportRows::kPrompts;
  if ((rows == ExportRows::kPrompts && !prompts) ||
      (rows == ExportRows::kPreferences && !preferences)) {
    throw Error(
        ErrorCode::kNotFound,
        "no dataset '" + request.dataset + "'" +
            (request.rows == ExportRows::kAuto ? "" : std::string(" of ") + RowsName(rows)) +
            "; the store has: " + Known(store) + " (rollouts: --rows rollouts)",
        store.path());
  }
  return Export(store, request).Run(rows);
}

}  // namespace plumb::replay
