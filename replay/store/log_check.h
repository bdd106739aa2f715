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

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace plumb::replay {

// One log or MANIFEST. A file that is not there (any more) is fine: RocksDB may delete it
// meanwhile.
void CheckLogFile(const std::string& path);
// Every log of the store in `folder` and the MANIFEST that CURRENT names.
void CheckLogs(const std::string& folder);

// For what is to be saved of a damaged log (replay/store/recover.h).
struct LogDamage {
  uint64_t byte = 0;  // of the record where it begins
  std::string what;   // "does not match its checksum"
};
// The first damage of a log that is there; nullopt: there is none.
std::optional<LogDamage> FindLogDamage(const std::string& path);
// use(record) on every record from byte `from` on, where one begins, that is whole and matches its
// checksum; damaged ones are passed over.
void ReadLog(const std::string& path, uint64_t from,
             const std::function<void(std::string_view)>& use);

}  // namespace plumb::replay
