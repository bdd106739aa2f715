// JSON lines as a Parquet file, in the types that the rows themselves show.
//
// Purpose: `plumb data export F.parquet`, for systems that read nothing else (verl). Objects become
// structs, lists lists, whole numbers int64; a text that looks like a date stays a text. A field
// that only some rows have is null in the others. Memory: all rows at once, about twice their size.
// Thread safety: pure function; one writer a file. Errors: kUnsupported where this program was
// built without Arrow, where one column holds values of several types and for an object without
// fields, with the way out; kIo, kNoSpace. The file appears whole or not at all.
#pragma once

#include <string>

namespace plumb::replay {

// REQUIRES: `lines` holds one JSON object a line, and at least one.
void WriteParquet(const std::string& lines, const std::string& out);

}  // namespace plumb::replay
