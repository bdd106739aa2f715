// Dataset files into a store: `plumb data import`.
//
// Every row ends in the ledger: read = used + rejected by reason. The form is found per file; files
// of one import have to hold the same kind of rows. A killed import goes on where it was when it is
// called again with the same files and options; the same files again change nothing. Memory: up to
// eight rows, buffers of some MB, and 16-32 bytes a used row for finding duplicates (by 64 bits of
// hash: of 100 million different rows one is taken for another's twin with a chance of 3 in
// 10,000).
// Thread safety: pure function of its arguments; nobody else may write the dataset meanwhile.
// Errors: those of RowSource, ImportWriter and Store; kInvalidArgument for a file without a usable
// row, listing why.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "replay/datasets/rows/dataset_import.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/store/store.h"

namespace plumb::replay {

struct ImportRequest {
  std::vector<std::string> files;
  std::string dataset = "train";
  RowParserOptions rows;
  std::string rejects;  // file for what was rejected, one JSON object per line; empty: none
  size_t max_row_bytes = size_t{16} << 20;
  int64_t commit_rows = 65536;    // rows between two marks, or 64 MB
  int64_t max_tokens = 0;         // 0: not checked, else needs `count_tokens`
  std::string overlong = "drop";  // error | drop: cutting is for whoever trains
  // Tokens of the longest sequence that the row makes.
  std::function<int64_t(const ParsedRow&)> count_tokens;
  FileSystem* file_system = nullptr;  // where `rejects` is written; null: RealFileSystem()
  // Called every few thousand rows with the part of the current file that was read; false: stop
  // here, to go on later.
  std::function<bool(const std::string& file, double part, int64_t rows)> progress;
};

struct FileLedger : RowLedger {
  std::string file;
  std::string container;  // jsonl | json array | csv | tsv | parquet
};

struct ImportReport {
  std::vector<FileLedger> files;
  RowKind kind = RowKind::kPrompts;
  uint64_t rows = 0;          // of the dataset
  uint64_t continued_at = 0;  // rows that an earlier, unfinished import had stored
  bool unchanged = false;     // the very same rows were there already
  bool stopped = false;       // by `progress`
};

ImportReport ImportFiles(Store& store, const ImportRequest& request);

}  // namespace plumb::replay
