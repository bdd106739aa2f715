#include "replay/datasets/rows/row_source.h"

#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/place.h"
#include "replay/datasets/rows/csv_source.h"
#include "replay/datasets/rows/line_reader.h"
#include "replay/datasets/rows/parquet_source.h"

namespace plumb::replay {
namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

class JsonLines : public RowSource {
 public:
  JsonLines(const std::string& path, size_t max_row_bytes) : lines_(path, max_row_bytes) {}
  bool Next(SourceRow& row) override {
    if (!lines_.Next(row.text)) return false;
    row.number = lines_.line_number();
    row.too_long = lines_.too_long();
    row.blank = !row.too_long && row.text.find_first_not_of(" \t\r") == std::string_view::npos;
    return true;
  }
  const char* container() const override { return "jsonl"; }
  double Progress() const override { return lines_.Progress(); }

 private:
  LineReader lines_;
};

// Cuts an array into its elements without looking into them beyond quotes and brackets; the row
// parser does the rest.
class JsonArray : public RowSource {
 public:
  JsonArray(const std::string& path, size_t max_row_bytes)
      : bytes_(path), path_(path), max_row_bytes_(max_row_bytes) {
    if (bytes_.Peek() == 0xEF) Get(), Get(), Get();  // a byte order mark
    if (Skip() != '[') throw Error(ErrorCode::kCorruption, "is no JSON array", path);
    Get();
  }
  bool Next(SourceRow& row) override {
    row = {.number = number_ + 1, .memory = std::move(row.memory)};
    std::string& text = row.memory;
    text.clear();
    int c = Skip();
    if (number_ == 0 && c == ']') return End();
    if (number_ > 0) {
      if (c == ']') return End();
      if (c != ',') Damaged(c, "a comma or the end of the array was expected");
      Get();
      Skip();
    }
    int depth = 0;
    bool quoted = false;
    for (;;) {
      c = bytes_.Peek();
      if (c < 0) Damaged(c, "");
      if (!quoted && depth == 0 && (c == ',' || c == ']')) break;
      Get();
      if (text.size() >= max_row_bytes_) row.too_long = true;
      if (!row.too_long) text.push_back(static_cast<char>(c));
      if (quoted) {
        if (c == '"') quoted = false;
        if (c == '\\') {
          c = Get();
          if (!row.too_long && c >= 0) text.push_back(static_cast<char>(c));
        }
        continue;
      }
      if (c == '"') quoted = true;
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
    }
    ++number_;
    if (row.too_long) text = std::string();
    else if (text.find_first_not_of(" \t\r\n") == std::string::npos)
      Damaged(c, "a value was expected");
    while (!text.empty() && IsBlank(text.back())) text.pop_back();
    if (text.capacity() < text.size() + kPadding) text.reserve(2 * text.size() + kPadding);
    row.text = text;
    return true;
  }
  const char* container() const override { return "json array"; }
  double Progress() const override { return bytes_.Progress(); }

 private:
  int Get() { return bytes_.Get(); }
  int Skip() {
    int c = bytes_.Peek();
    while (c >= 0 && IsBlank(static_cast<char>(c))) Get(), c = bytes_.Peek();
    return c;
  }
  bool End() {
    if (ended_) return false;
    Get();
    ended_ = true;
    const int c = Skip();
    if (c >= 0) Damaged(c, "the array has ended");
    return false;
  }
  [[noreturn]] void Damaged(int c, const std::string& expected) const {
    const std::string where = path_ + ": element " + std::to_string(number_ + 1);
    if (c < 0)
      throw Error(ErrorCode::kCorruption,
                  "the JSON array ends too early: the file was cut, get it again", where);
    throw Error(ErrorCode::kCorruption,
                std::string("'") + static_cast<char>(c) + "' stands where " + expected, where);
  }
  ByteSource bytes_;
  const std::string path_;
  const size_t max_row_bytes_;
  int64_t number_ = 0;
  bool ended_ = false;
};

bool IsUnnamedCsv(const std::string& path) {
  if (std::filesystem::path(path).has_extension()) return false;
  std::string_view line;
  LineReader lines(path, size_t{1} << 16);
  return lines.Next(line) && NamesColumns(line);
}

std::string Magic(const std::string& path) {
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, 4);
  return std::string(magic, 4);
}

// Of what holds no JSON: a name that promises another form than its first bytes are of.
void RefuseMisnamed(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::file_size(path, ignored) == 0 || ignored) return;
  const bool parquet = path.ends_with(".parquet");
  if ((!parquet && !path.ends_with(".gz")) || Magic(path).starts_with("\x1F\x8B")) return;
  throw Error(ErrorCode::kCorruption,
              std::string("is no ") + (parquet ? "Parquet" : "gzip") +
                  " file, though it is called so: it does not begin as one (" +
                  (parquet ? "PAR1" : "1F 8B") +
                  "), and there is no JSON in it either; get it again, a page that "
                  "says why may have been saved in its place",
              path);
}

}  // namespace

bool IsSavedToDisk(const std::string& folder) {
  const std::filesystem::path path(folder);
  std::error_code ignored;
  for (const char* name : {"dataset_info.json", "dataset_dict.json", "state.json"}) {
    if (std::filesystem::exists(path / name, ignored)) return true;
  }
  return false;
}

std::string WhatAFileHolds(const std::string& path) {
  std::string text =
      "a file holds one JSON object a line, or one JSON array of objects; an object over several "
      "lines is neither; CSV and TSV are known by their names (.csv, .tsv, and .gz behind either)";
  if (path.ends_with(".txt") || path.ends_with(".md")) {
    const std::string rows = path.substr(0, path.rfind('.')) + ".jsonl";
    text +=
        "\n  plain text is no rows; where each of its lines is a prompt: jq -Rc '{prompt: .}' " +
        path + " > " + rows;
  }
  return text;
}

std::unique_ptr<RowSource> RowSource::Open(const std::string& path, size_t max_row_bytes) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored)) {
    const std::string magic = Magic(path);
    if (magic == "PARE")
      throw Error(ErrorCode::kUnsupported, "is an encrypted Parquet file: decrypt it first", path);
    if (magic == "PAR1") return OpenParquet(path, max_row_bytes);
    const Place place = PlaceOf(path);
    if (place == Place::kWeights || place == Place::kRecipe || place == Place::kPython)
      throw Error(place == Place::kWeights ? ErrorCode::kUnsupported : ErrorCode::kInvalidArgument,
                  NotWhatIsWanted(path, "a file of rows"), path);
    static constexpr char kArrow[] =
        "an Arrow file: write it as Parquet, python3 -c \"import datasets; "
        "datasets.load_from_disk('FOLDER').to_parquet('F.parquet')\"";
    constexpr std::pair<std::string_view, const char*> kOther[] = {
        {"PK\x03\x04", "a zip archive"},
        {"\x28\xB5\x2F\xFD", "compressed by zstd"},
        {"BZh", "compressed by bzip2"},
        {"\xFD\x37zX", "compressed by xz"},
        {"ARRO", kArrow},
        {"\xFF\xFF\xFF\xFF", kArrow},
        {"GGUF",
         "a model in GGUF, not a dataset: `plumb convert` reads it, model.path takes what comes "
         "out"},
        {"\xFF\xFE", "UTF-16: write it as UTF-8 (iconv -f UTF-16 -t UTF-8)"}};
    for (const auto& [begin, what] : kOther) {
      if (!magic.starts_with(begin)) continue;
      throw Error(ErrorCode::kUnsupported,
                  std::string("is ") + what +
                      "; what is read: JSON lines, a JSON array, CSV, TSV, gzip of them, Parquet",
                  path);
    }
  } else if (std::filesystem::is_directory(path, ignored)) {
    if (IsSavedToDisk(path)) {
      throw Error(ErrorCode::kUnsupported,
                  "is a folder of datasets' save_to_disk: write it as Parquet, python3 -c \"import "
                  "datasets; datasets.load_from_disk('FOLDER').to_parquet('F.parquet')\" (of a "
                  "dictionary of splits: [...]['train'])",
                  path);
    }
    const Place place = PlaceOf(path);
    throw Error(ErrorCode::kInvalidArgument,
                place == Place::kFolder || place == Place::kEmptyFolder
                    ? "is a folder, not a file: name the files in it"
                    : NotWhatIsWanted(path, "a file of rows") +
                          (place == Place::kStore ? "; `plumb data export rows.jsonl --store " +
                                                        path + "` writes a file of its rows"
                                                  : ""),
                path);
  }
  char first = 0;  // that is not blank, unpacked
  {
    ByteSource peek(path);
    int c = peek.Get();
    if (c == 0xEF && peek.Get() == 0xBB && peek.Get() == 0xBF) c = peek.Get();
    while (c >= 0 && IsBlank(static_cast<char>(c))) c = peek.Get();
    first = c < 0 ? 0 : static_cast<char>(c);
  }
  if (first != '[' && first != '{' && (IsCsvName(path) || IsUnnamedCsv(path)))
    return OpenCsv(path, max_row_bytes);
  if (first != '[' && first != '{') RefuseMisnamed(path);
  if (first == '[') return std::make_unique<JsonArray>(path, max_row_bytes);
  return std::make_unique<JsonLines>(path, max_row_bytes);
}

}  // namespace plumb::replay
