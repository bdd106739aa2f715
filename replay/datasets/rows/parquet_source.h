// Parquet files as rows of JSON text, so that the one row parser and its ledger serve them, too.
//
// Lists become arrays, structs and maps with text keys objects, text and binary columns strings,
// times, dates and decimals their text; values of logical type JSON what they say. NaN and infinite
// numbers keep their names, bytes that are no text are written as Binary:
// replay/datasets/rows/odd_values.h says what becomes of them.
//
// Memory: one batch of 256 rows and one page a column, whatever the size of
// file and row groups; at most 64 MB and 256 times the file, and at most 1 GB, else kUnsupported.
// Pages with checksums are checked. Built in where Arrow's headers were found (PLUMB_PARQUET,
// cmake/PlumbDependencies.cmake).
//
// Thread safety and errors as of RowSource; kCorruption for a
// damaged or cut file; kUnsupported for encrypted ones, and for all when it is not built in.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "replay/datasets/rows/row_source.h"

namespace plumb::replay {

bool HasParquet();  // is it built in
std::unique_ptr<RowSource> OpenParquet(const std::string& path, size_t max_row_bytes);

}  // namespace plumb::replay
