#include "replay/datasets/rows/csv_source.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <string_view>
#include <vector>

#include <simdjson.h>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/record/json_text.h"
#include "replay/datasets/rows/line_reader.h"
#include "replay/datasets/rows/row_parser.h"

namespace plumb::replay {
namespace {

// Lower case, without .gz.
std::string NameOf(std::string path) {
  std::transform(path.begin(), path.end(), path.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (path.ends_with(".gz")) path.resize(path.size() - 3);
  return path;
}

char FirstSeparator(std::string_view header) {
  bool quoted = false;
  for (const char c : header) {
    if (c == '"') quoted = !quoted;
    if (!quoted && (c == ',' || c == ';' || c == '\t')) return c;
    if (!quoted && c == '\n') break;
  }
  return ',';
}

// Appends the JSON of a field that is a dialogue; false: it is a text. A list of lists may be
// anything (a matrix), but for the one column that is known to be made of them.
bool AppendDialogue(std::string& out, const std::string& name, std::string_view text,
                    simdjson::dom::parser& parser) {
  namespace dom = simdjson::dom;
  dom::element list;
  const simdjson::padded_string padded(text);
  if (parser.parse(padded).get(list) != simdjson::SUCCESS || !list.is_array()) return false;
  const dom::array items = list;
  if (items.size() == 0) return false;
  for (const dom::element item : items) {
    dom::element key;
    const bool turn = item.is_object() && (item["role"].get(key) == simdjson::SUCCESS ||
                                           item["from"].get(key) == simdjson::SUCCESS);
    if (!turn && !(name == "history" && item.is_array())) return false;
  }
  out += simdjson::minify(list);
  return true;
}

bool IsPrintedByPython(std::string_view text) {
  for (const std::string_view begin : {"[{'role':", "[{'content':", "[{'from':", "[{'value':"}) {
    if (text.starts_with(begin)) return true;
  }
  return false;
}

class Csv : public RowSource {
 public:
  Csv(const std::string& path, size_t max_row_bytes, char separator)
      : bytes_(path), path_(path), max_row_bytes_(max_row_bytes) {
    if (bytes_.Peek() == 0xEF) bytes_.Get(), bytes_.Get(), bytes_.Get();  // a byte order mark
    tabs_ = NameOf(path).ends_with(".tsv");
    separator_ = separator != 0 ? separator : tabs_ ? '\t' : FirstSeparator(bytes_.Chunk());
    tabs_ = separator_ == '\t';
    const bool any = ReadRecord();
    if (!any || IsBlank())
      throw Error(ErrorCode::kInvalidArgument, "the first line has to name the columns", path);
    if (too_long_ || !problem_.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the line that names the columns: " + (too_long_ ? "is too long" : problem_),
                  path);
    }
    std::set<std::string> once;
    for (size_t i = 0; i < fields_.size(); ++i) {
      std::string name(Trim(fields_[i].text));
      if (name.empty()) name = "column_" + std::to_string(i + 1);
      if (!once.insert(name).second)
        throw Error(ErrorCode::kInvalidArgument, "the column '" + name + "' is named twice", path);
      names_.push_back(std::move(name));
    }
  }

  bool Next(SourceRow& row) override {
    if (!ReadRecord()) return false;
    row.number = began_;
    row.too_long = too_long_;
    row.problem = problem_;
    row.blank = !too_long_ && IsBlank();
    std::string& text = row.memory;
    text.clear();
    if (!row.blank && !too_long_ && row.problem.empty() && fields_.size() != names_.size()) {
      row.problem = std::to_string(fields_.size()) + " fields, the first line names " +
                    std::to_string(names_.size()) + " columns";
    }
    if (!row.blank && !too_long_ && row.problem.empty()) {
      for (size_t i = 0; i < names_.size(); ++i) {
        text.push_back(i == 0 ? '{' : ',');
        AppendJsonText(text, names_[i]);
        text.push_back(':');
        AppendValue(fields_[i], names_[i], text, row.problem);
      }
      text.push_back('}');
      if (text.size() > max_row_bytes_) row.too_long = true;
      if (row.too_long || !row.problem.empty()) text.clear();
    }
    if (text.capacity() < text.size() + kPadding) text.reserve(2 * text.size() + kPadding);
    row.text = text;
    return true;
  }
  const char* container() const override { return tabs_ ? "tsv" : "csv"; }
  bool all_text() const override { return true; }
  double Progress() const override { return bytes_.Progress(); }

 private:
  struct Field {
    std::string text;
    bool quoted = false;
  };

  bool IsBlank() const {
    return fields_.size() == 1 && fields_[0].text.empty() && !fields_[0].quoted;
  }
  void AppendValue(const Field& field, const std::string& name, std::string& out,
                   std::string& problem) {
    if (field.text.empty() && !field.quoted) {
      out += "null";
      return;
    }
    const std::string_view text = Trim(field.text);
    if (text.starts_with('[')) {
      if (AppendDialogue(out, name, text, parser_)) return;
      if (IsPrintedByPython(text) && problem.empty()) {
        problem = "'" + name +
                  "' is a list as Python prints it, and no JSON: write the table as JSON lines, "
                  "df.to_json('F.jsonl', orient='records', lines=True)";
      }
    }
    AppendJsonText(out, field.text);
  }
  bool AtEnd() {
    const int c = bytes_.Peek();
    return c < 0 || c == '\n';
  }
  void Problem(const char* what) {
    if (problem_.empty()) problem_ = what + std::to_string(fields_.size() + 1);
  }
  void Append(Field& field, int c) {
    if (++size_ > max_row_bytes_) too_long_ = true;
    if (!too_long_) field.text.push_back(static_cast<char>(c));
  }

  void Quoted(Field& field) {
    field.quoted = true;
    bytes_.Get();
    const int64_t opened = line_;
    for (;;) {
      const int c = bytes_.Get();
      if (c < 0)
        throw Error(ErrorCode::kCorruption, "quotes are opened here and never closed",
                    path_ + ":" + std::to_string(opened));
      if (c == '"') {
        if (bytes_.Peek() != '"') break;
        bytes_.Get();
      }
      line_ += c == '\n';
      Append(field, c);
    }
    if (bytes_.Peek() == '\r') {
      bytes_.Get();
      if (!AtEnd()) Problem("text behind the closing quotes of field ");
    }
    while (!AtEnd() && bytes_.Peek() != separator_) {
      Problem("text behind the closing quotes of field ");
      bytes_.Get();
    }
  }

  void Bare(Field& field) {
    while (!AtEnd() && bytes_.Peek() != separator_) {
      const int c = bytes_.Get();
      if (c == '"')
        Problem(
            "quotes within a bare field (put the whole field in quotes, and double those within "
            "it): field ");
      Append(field, c);
    }
    if (AtEnd() && field.text.ends_with('\r')) field.text.pop_back();
  }

  // The next record; false at the end of the file.
  bool ReadRecord() {
    fields_.clear();
    problem_.clear();
    size_ = 0;
    too_long_ = false;
    began_ = ++line_;
    if (bytes_.Peek() < 0) return false;
    for (;;) {
      Field field;
      if (bytes_.Peek() == '"') {
        Quoted(field);
      } else {
        Bare(field);
      }
      if (++size_ > max_row_bytes_) too_long_ = true;  // fields without a letter take room, too
      if (!too_long_) fields_.push_back(std::move(field));
      if (bytes_.Get() != separator_) return true;
    }
  }

  ByteSource bytes_;
  simdjson::dom::parser parser_;  // of fields
  const std::string path_;
  const size_t max_row_bytes_;
  char separator_ = ',';
  bool tabs_ = false;
  std::vector<std::string> names_;
  // Of the last record.
  std::vector<Field> fields_;
  std::string problem_;
  size_t size_ = 0;
  bool too_long_ = false;
  int64_t began_ = 0;
  int64_t line_ = 0;  // the last line of which something was read
};

}  // namespace

bool IsCsvName(const std::string& path) {
  const std::string name = NameOf(path);
  return name.ends_with(".csv") || name.ends_with(".tsv");
}

bool NamesColumns(std::string_view line) {
  const char separator = FirstSeparator(line);
  while (true) {
    const size_t end = line.find(separator);
    std::string_view name = Trim(line.substr(0, end));
    if (name.size() > 1 && name.starts_with('"') && name.ends_with('"'))
      name = name.substr(1, name.size() - 2);
    if (IsRowPart(name) || name == "question" || name == "conversations") return true;
    if (end == std::string_view::npos) return false;
    line.remove_prefix(end + 1);
  }
}

std::unique_ptr<RowSource> OpenCsv(const std::string& path, size_t max_row_bytes, char separator) {
  return std::make_unique<Csv>(path, max_row_bytes, separator);
}

}  // namespace plumb::replay
