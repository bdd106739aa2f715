// Rows of a CSV or TSV file as JSON objects, one after the other: the first record names the
// columns.
//
// RFC 4180, strictly: a field in quotes may hold separators, line ends and doubled quotes; a record
// with quotes within a bare field, with text behind closing quotes or with another number of fields
// than the header is a row that cannot be used (SourceRow::problem). Every value is a text, an
// empty bare field null, and a field that is a JSON list of messages or of ShareGPT's turns (in the
// column `history` also of lists) that list; such a list as Python prints it is a row that cannot
// be used. Lines end in LF or CRLF; an empty line is no row; a byte order mark is passed over; gzip
// is unpacked. Columns without a name are called column_N. Memory: one row and a buffer.
//
// Thread safety: none, one reader a thread. Errors: as of ByteSource; kCorruption with the
// line where quotes are opened and never closed; kInvalidArgument for a header that names a column
// twice or nothing.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "replay/datasets/rows/row_source.h"

namespace plumb::replay {

// .csv, .tsv, and .gz behind either, in any case of letters.
bool IsCsvName(const std::string& path);
// Of a file whose name says nothing (standard input): its first line names a part of a row.
bool NamesColumns(std::string_view first_line);
// `separator`: 0 takes the tab for .tsv, else which of , ; and tab the header has first outside of
// quotes.
std::unique_ptr<RowSource> OpenCsv(const std::string& path, size_t max_row_bytes,
                                   char separator = 0);

}  // namespace plumb::replay
