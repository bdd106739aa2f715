// Log files of RocksDB, read by us before RocksDB reads them.
//
// Purpose: RocksDB takes some damage for the end of a log and opens without what comes behind it: a
// flipped bit in a record's type makes it one of a reused log, a flipped length at the end of the
// file makes it a torn one. What was behind is then gone, and the files that only the lost lines of
// a MANIFEST named are deleted. A store never reuses or packs its logs, so every record but a torn
// last one has to match its checksum. Also true of the MANIFEST, which has the same form.
//
// The form: blocks of 32 KiB; a record is CRC32C (4 bytes LE, masked, over type and payload),
// payload length (2 LE), type (1), payload; it never crosses a block. What is left of a block that
// has no room for a header is zero.
// Not found: a file that ends exactly behind an earlier record (replay/table/table.h, CheckCursor;
// replay/table/remote.h).
// Thread safety: pure functions of the files. Memory: one block. Errors: kCorruption with file and
// byte, kIo.
#pragma once

#include <string>

namespace plumb::replay {

// One log or MANIFEST. A file that is not there (any more) is fine: RocksDB may delete it
// meanwhile.
void CheckLogFile(const std::string& path);
// Every log of the store in `folder` and the MANIFEST that CURRENT names.
void CheckLogs(const std::string& folder);

}  // namespace plumb::replay
