#include "replay/datasets/exporter.h"

#include <filesystem>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "replay/datasets/line_writer.h"
#include "replay/datasets/missing_rollouts.h"
#include "replay/datasets/rows/end_token.h"
#include "replay/datasets/rows/parquet_writer.h"
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

std::string Differs(const std::string& column) { return "the column '" + column + "' differs"; }

// Empty: equal. Where a record lies in the store is not part of what it says, nor are the tokens of
// a prompt, which are made again.
std::string Difference(const Prompt& stored, const ParsedRow& row) {
  const Prompt& read = row.prompt;
  if (KindOf(row.form) != RowKind::kPrompts)
    return std::string("is read as ") + KindName(KindOf(row.form));
  if (read.text != stored.text || read.messages != stored.messages) return Differs("prompt");
  if (read.ground_truth != stored.ground_truth) return "the ground truth differs";
  if (read.weight != stored.weight) return Differs("weight");
  return DifferentColumn(stored.extra_json, read.extra_json);
}

// `tokens`: whether they are in the row.
std::string Difference(const PreferenceRecord& stored, const ParsedRow& row, bool tokens) {
  const PreferenceRecord& read = row.record;
  if (KindOf(row.form) == RowKind::kPrompts || read.kind != stored.kind)
    return std::string("is read as ") + KindName(KindOf(row.form));
  if (read.prompt_text != stored.prompt_text || read.prompt != stored.prompt)
    return Differs("prompt");
  if (read.chosen != stored.chosen)
    return Differs(stored.kind == PreferenceKind::kPair ? "chosen" : "completion");
  if (read.rejected != stored.rejected) return Differs("rejected");
  if (read.desirable != stored.desirable) return Differs("label");
  if (read.has_margin != stored.has_margin || read.margin != stored.margin)
    return Differs("margin");
  if (read.weight != stored.weight) return Differs("weight");
  if (tokens &&
      (read.prompt_tokens != stored.prompt_tokens || read.chosen_tokens != stored.chosen_tokens ||
       read.rejected_tokens != stored.rejected_tokens))
    return "the tokens differ";
  return DifferentColumn(stored.extra_json, read.extra_json);
}

// The demonstration that a row of an answer has to be. Columns of the prompt that give way to one
// of the answer's are counted where the row is written.
std::string Difference(const TrajectoryGroup& group, const Trajectory& t,
                       const ExportRequest& request, const ParsedRow& row) {
  const Prompt& prompt = group.lease.prompt;
  PreferenceRecord answer{.kind = PreferenceKind::kDemonstration};
  if (prompt.messages.empty()) answer.prompt_text = prompt.text;
  else answer.prompt = prompt.messages;
  answer.chosen = {{.role = "assistant", .content = Said(t, request.end_tokens)}};
  answer.extra_json = row.record.extra_json;
  if (!row.record.prompt_tokens.empty()) {
    const auto end = t.tokens.begin() + t.prompt_length();
    answer.prompt_tokens = {t.tokens.begin(), end};
    answer.chosen_tokens = {end, t.tokens.end()};
  }
  const std::string found = Difference(answer, row, !row.record.prompt_tokens.empty());
  if (!found.empty()) return found;
  const auto read = ColumnsOf(row.record.extra_json);
  const std::pair<const char*, std::string> ids[] = {
      {"lease", std::to_string(group.lease.lease_id)}, {"sample", std::to_string(t.sample)}};
  for (const auto& [name, value] : ids) {
    const auto column = read.find(name);
    if (column == read.end() || column->second != value) return Differs(name);
  }
  for (const auto& [name, value] : ColumnsOf(prompt.extra_json)) {
    if (!read.contains(name)) return "the column '" + name + "' is read as a part of the row";
  }
  return "";
}

// verl's rows of rollouts are their prompts, with columns more.
std::string PromptDifference(const Prompt& stored, const ParsedRow& row) {
  ParsedRow without = row;
  without.prompt.extra_json = stored.extra_json;
  const std::string found = Difference(stored, without);
  if (!found.empty()) return found;
  const auto read = ColumnsOf(row.prompt.extra_json);
  for (const auto& [name, value] : ColumnsOf(stored.extra_json)) {
    const auto column = read.find(name);
    if (column == read.end()) return "the column '" + name + "' is read as a part of the row";
    if (column->second != value) return Differs(name);
  }
  return "";
}

class Export {
 public:
  Export(const Store& store, const ExportRequest& request)
      : store_(store),
        request_(request),
        parquet_(request.out.ends_with(".parquet")),
        lines_(parquet_ ? request.out + ".jsonl" : request.out),
        out_(lines_, request.files ? *request.files : RealFileSystem()) {}

  ExportReport Run(ExportRows rows) {
    report_.rows = rows;
    const bool whole = rows == ExportRows::kPrompts    ? Prompts()
                       : rows == ExportRows::kRollouts ? Rollouts()
                                                       : Preferences();
    if (!whole) {
      report_.stopped = true;
      return report_;
    }
    int64_t left_out = 0;
    for (const auto& [reason, n] : report_.left_out) left_out += n;
    PLUMB_CHECK(report_.read == report_.written + left_out, report_.Describe());
    if (report_.written == 0) {
      std::string why = "nothing to export: " + report_.Describe();
      if (rows == ExportRows::kRollouts) {
        if (report_.read == 0) why += "\n  " + WhyNoRollouts(store_, request_.purpose);
        if (report_.other_purpose > 0) why += "\n  " + OtherPurpose(report_, request_);
      }
      throw Error(ErrorCode::kNotFound, why, store_.path());
    }
    out_.Finish();
    report_.bytes = out_.bytes();
    if (parquet_) ToParquet();
    if (request_.progress) request_.progress(1, report_.read);
    return report_;
  }

 private:
  bool Prompts() {
    const uint64_t rows = store_.PromptCount(request_.dataset);
    // One column for the ground truth of all rows: that which one of them has kept.
    for (uint64_t row = 0; row < rows && truth_.empty() && request_.form == ExportForm::kTrl; ++row)
      truth_ = TruthColumn(store_.ReadPrompt(request_.dataset, row));
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
    const Purpose other = request_.purpose == Purpose::kTrain ? Purpose::kEval : Purpose::kTrain;
    report_.other_purpose = static_cast<int64_t>(store_.Ids(other).size());
    const auto ids = store_.Ids(request_.purpose);
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto stored = store_.Read(request_.purpose, ids[i]);
      if (stored) Group(*stored);  // else trimmed since
      if (!Pause(i + 1, ids.size())) return false;
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
    const auto rows =
        RolloutRows(stored.group, request_.form, request_.end_tokens, request_.tokens);
    for (size_t i = 0; i < rows.size(); ++i) {
      std::string problem;
      if (const auto read = mirror_.Read(rows[i].text, problem)) {
        problem = request_.form == ExportForm::kTrl
                      ? Difference(stored.group, stored.group.trajectories[i], request_, *read)
                      : PromptDifference(stored.group.lease.prompt, *read);
        mirror_.Keep(*read);
      }
      if (problem.empty()) ++report_.same;
      else
        Example("lease " + std::to_string(stored.group.lease.lease_id) +
                (rows.size() > 1 ? ", answer " + std::to_string(i) : "") + ": " + problem);
      Write(rows[i]);
    }
    ++report_.written;
  }

  void Example(std::string what) {
    if (report_.examples.size() < kMaxExamples) report_.examples.push_back(std::move(what));
  }

  std::vector<ExportCandidate> CandidatesOf(const Prompt& prompt) const {
    return Candidates(prompt, request_.form, truth_);
  }
  std::vector<ExportCandidate> CandidatesOf(const PreferenceRecord& record) const {
    return Candidates(record, request_.form, request_.tokens);
  }
  std::string Compare(const Prompt& prompt, const ParsedRow& row) const {
    return Difference(prompt, row);
  }
  std::string Compare(const PreferenceRecord& record, const ParsedRow& row) const {
    return Difference(record, row, request_.tokens && !record.prompt_tokens.empty());
  }

  template <class Record>
  void Row(const Record& record, uint64_t row) {
    ++report_.read;
    const auto candidates = CandidatesOf(record);
    if (candidates.empty()) {
      ++report_.left_out["only_tokens"];
      return;
    }
    std::string why;
    for (const ExportCandidate& candidate : candidates) {
      std::string problem;
      const auto read = mirror_.Read(candidate.text, problem);
      if (read) problem = Compare(record, *read);
      if (problem.empty()) {
        mirror_.Keep(*read);
        ++report_.same;
        ++report_.written;
        return Write(candidate);
      }
      if (why.empty()) why = problem;
    }
    Example("row " + std::to_string(row) + ": " + why);
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

  // A column of a table has one type, and a field that one row has all have: what that changes is
  // told.
  void ToParquet() {
    struct Remove {
      const std::string& path;
      ~Remove() {
        std::error_code ignored;
        std::filesystem::remove(path, ignored);
      }
    } remove{lines_};
    WriteParquet(lines_, request_.out);
    report_.bytes = std::filesystem::file_size(request_.out);
    const auto before = RowSource::Open(lines_), after = RowSource::Open(request_.out);
    Mirror first, second;
    for (SourceRow a, b; before->Next(a) && after->Next(b);) {
      std::string why;
      const auto x = first.Read(std::string(a.text), why);
      const auto y = second.Read(std::string(b.text), why);
      if (x) first.Keep(*x);
      if (y) second.Keep(*y);
      if (!x) continue;  // counted when it was written
      const bool prompt = KindOf(x->form) == RowKind::kPrompts;
      if (y) why = prompt ? Difference(x->prompt, *y) : Difference(x->record, *y, /*tokens=*/true);
      if (why.empty()) continue;
      ++report_.notes["rows_changed_by_the_types_of_parquet"];
      if (report_.same > 0) --report_.same;
      Example("row " + std::to_string(b.number - 1) + " as Parquet: " + why);
    }
  }

  bool Pause(uint64_t done, uint64_t all) {
    if (!request_.progress || done % kPiece != 0) return true;
    return request_.progress(static_cast<double>(done) / static_cast<double>(all), report_.read);
  }

  const Store& store_;
  const ExportRequest& request_;
  const bool parquet_;
  const std::string lines_;  // where the rows are written first
  LineWriter out_;
  Mirror mirror_;
  ExportReport report_;
  std::string truth_;  // column of prompts; "": ground_truth
};

// Of a dataset that is not of prompts: as its first row, for all are of one kind
// (replay/datasets/importer.h).
ExportRows KindOfRows(const Store& store, const std::string& dataset) {
  const auto first = store.ReadPreferences(dataset, 0, 1);
  if (first.empty()) return ExportRows::kPreferences;
  switch (first.front().kind) {
    case PreferenceKind::kPair: return ExportRows::kPreferences;
    case PreferenceKind::kLabelled: return ExportRows::kLabelled;
    case PreferenceKind::kDemonstration: return ExportRows::kDemonstrations;
  }
  return ExportRows::kPreferences;
}

std::string Known(const Store& store) {
  std::string names;
  for (const auto& [name, rows] : store.Datasets())
    names += (names.empty() ? "" : ", ") + name + " (prompts)";
  for (const auto& [name, rows] : store.PreferenceDatasets())
    names += (names.empty() ? "" : ", ") + name + " (" + RowsName(KindOfRows(store, name)) + ")";
  return names.empty() ? "none" : names;
}

constexpr ExportRows kAllRows[] = {ExportRows::kAuto,           ExportRows::kPrompts,
                                   ExportRows::kPreferences,    ExportRows::kLabelled,
                                   ExportRows::kDemonstrations, ExportRows::kRollouts};

}  // namespace

const char* RowsName(ExportRows rows) {
  switch (rows) {
    case ExportRows::kAuto: return "auto";
    case ExportRows::kPrompts: return "prompts";
    case ExportRows::kPreferences: return "preferences";
    case ExportRows::kLabelled: return "labelled";
    case ExportRows::kDemonstrations: return "demonstrations";
    case ExportRows::kRollouts: return "rollouts";
  }
  return "unknown";
}

std::string RowsNames(const std::string& between) {
  std::string names;
  for (const ExportRows rows : kAllRows) names += (names.empty() ? "" : between) + RowsName(rows);
  return names;
}

std::optional<ExportRows> ExportRowsOfName(std::string_view name) {
  for (const ExportRows rows : kAllRows) {
    if (name == RowsName(rows)) return rows;
  }
  return std::nullopt;
}

std::string ExportReport::Describe() const {
  std::string text = "read " + std::to_string(read) + " = written " + std::to_string(written);
  for (const auto& [reason, n] : left_out) text += " + " + std::to_string(n) + " " + reason;
  return text;
}

std::string OtherPurpose(const ExportReport& report, const ExportRequest& request) {
  const bool train = request.purpose == Purpose::kTrain;
  return std::to_string(report.other_purpose) +
         (train ? " groups of held-out evaluations left out: --eval exports those instead"
                : " groups of training left out: without --eval those are exported");
}

ExportReport ExportDataset(const Store& store, const ExportRequest& request) {
  ExportRows rows = request.rows;
  if (rows == ExportRows::kRollouts) return Export(store, request).Run(rows);
  const bool prompts = store.PromptCount(request.dataset) > 0,
             others = store.PreferenceCount(request.dataset) > 0;
  const ExportRows kind = others ? KindOfRows(store, request.dataset) : ExportRows::kPrompts;
  if (rows == ExportRows::kAuto && prompts && others) {
    throw Error(ErrorCode::kInvalidArgument,
                "'" + request.dataset + "' names prompts and " + RowsName(kind) +
                    ": say which with --rows prompts or --rows " + RowsName(kind),
                store.path());
  }
  if (rows == ExportRows::kAuto) rows = kind;
  if (rows != ExportRows::kPrompts && others && rows != kind) {
    throw Error(ErrorCode::kInvalidArgument,
                "'" + request.dataset + "' holds " + RowsName(kind) + ", no " + RowsName(rows) +
                    ": --rows " + RowsName(kind),
                store.path());
  }
  if (rows == ExportRows::kPrompts ? !prompts : !others) {
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
