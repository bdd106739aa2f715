// Where RocksDB writes a table file for the store to take in: in whole aligned pieces, summed, and read back.
//
// Purpose: RocksDB hands a table file to the kernel block by block, at odd offsets; whole aligned pieces on space that was reserved
// before them take the kernel half as long. And what was written is read back against one sum of all bytes, which is quicker
// than taking every block apart again.
// For files that are written once, in order, and count only once they are synced: Flush leaves what does not fill a piece in
// memory, Sync and Close write it.
// Thread safety: none, one file at a time. Ownership: `below` outlives it, and it the files.
#pragma once

#include <memory>
#include <string>

#include <rocksdb/env.h>

namespace plumb::replay {

class AlignedDisk {
 public:
  explicit AlignedDisk(rocksdb::Env* below);
  ~AlignedDisk();
  rocksdb::Env* env() const { return env_.get(); }
  // REQUIRES: `path` was written through env(), last of all files, and is closed. Corruption where it does not hold the bytes that
  // were written.
  rocksdb::Status ReadBack(const std::string& path) const;

 private:
  class Files;
  class File;
  std::shared_ptr<Files> files_;
  std::unique_ptr<rocksdb::Env> env_;
};

}  // namespace plumb::replay
