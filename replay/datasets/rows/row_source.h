// Rows of a dataset file as JSON texts, one after the other: JSONL, a JSON array, CSV, TSV, gzip of
// them, Parquet.
//
// What a file is, its first bytes say: "PAR1" Parquet (replay/datasets/rows/parquet_source.h), '['
// (after blanks) a JSON array, else lines; of others than JSON its name: CSV and TSV
// (replay/datasets/rows/csv_source.h), or where it has no extension (standard input) the first
// line. Rows may hold the values of replay/datasets/rows/odd_values.h. Memory: one row and fixed
// buffers, whatever the size of the file.
//
// Thread safety: none, one reader a thread. Errors: kNotFound, kIo; kCorruption for a
// gzip stream or an array that is damaged or cut, naming the place; kUnsupported for other
// containers (zip, zstd, bzip2, xz, Arrow and the folders of datasets' save_to_disk, GGUF, UTF-16),
// with the way out; of Parquet as its header says.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace plumb::replay {

// For an error about a file of which no line is JSON; one of plain text by its name is told how it
// becomes rows.
std::string WhatAFileHolds(const std::string& path);

struct SourceRow {
  std::string_view text;  // with kPadding readable bytes behind it; until the next row is asked for
  int64_t number = 0;     // line of the file, or element of the array or table, from 1
  bool too_long = false;  // longer than the bound: `text` is empty
  bool blank = false;     // an empty line: no row
  std::string problem;    // not empty: the row cannot be used (of CSV), `text` is empty
  std::string memory;     // where the text lies if it lies in no buffer
};

// A folder of datasets' save_to_disk: not read, its refusal says how to convert it.
bool IsSavedToDisk(const std::string& folder);

class RowSource {
 public:
  static constexpr size_t kPadding = 64;
  static std::unique_ptr<RowSource> Open(const std::string& path,
                                         size_t max_row_bytes = size_t{16} << 20);
  virtual ~RowSource() = default;
  virtual bool Next(SourceRow& row) = 0;      // false at the end
  virtual const char* container() const = 0;  // "jsonl", "json array", "csv", "tsv", "parquet"
  // Numbers and booleans are texts because there is nothing else.
  virtual bool all_text() const { return false; }
  virtual double Progress() const = 0;  // part of the file that was read, 0 .. 1
};

}  // namespace plumb::replay
