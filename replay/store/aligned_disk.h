// A disk for the table files that a store takes in: they are written in large aligned pieces, and
// read back.
//
// Purpose: RocksDB hands a table file to the kernel block by block, at odd offsets; whole aligned
// pieces on space that was reserved before them take the kernel half as long. And what was written
// is read back against one sum of all bytes, which is quicker than taking every block apart again.
// For files that are written once, in order, and count only once they are synced: Flush leaves what
// does not fill a piece in memory; Sync writes it. Each piece is read back once it is written; Sync
// is Corruption where that was other bytes than were written.
// Thread safety: that of `below`. Ownership: `below` outlives it, and it the files.
#pragma once

#include <memory>

#include <rocksdb/env.h>

namespace plumb::replay {

std::unique_ptr<rocksdb::Env> MakeAlignedDisk(rocksdb::Env* below);

}  // namespace plumb::replay
