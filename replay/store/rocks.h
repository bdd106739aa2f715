// The RocksDB folder under a store: the settings of docs/reliability.md, opening, writing and what
// can go wrong there.
//
// After a full disk the database is closed and opened again by the next write that finds room
// (RocksDB's own ways back may wait for ever: a flush that the full disk ended keeps its memory
// table). So nobody holds the database itself: reads go through Get, Iterate and With, which keep
// it open meanwhile; what handle() returns stays valid for batches.
// Thread safety: all methods but Open; Write may be called concurrently (RocksDB's write group
// shares one sync among the callers). A thread that holds a Cursor or a Pinned or is inside With
// must not call a method that writes.
// Errors: see replay/store/store.h; ThrowStatus maps RocksDB's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include <rocksdb/db.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/write_batch.h>

#include "common/base/mutex.h"

namespace plumb::replay {

enum class Family : uint8_t {
  kMeta = 0,
  kPrompts,
  kLeases,
  kGroups,
  kEval,
  kPreferences,
  kLogprobs,
  kScores,
  kPlans
};
inline constexpr int kFamilies = 9;
// those that every store has; a store made earlier lacks the rest until written
inline constexpr int kFirstFamilies = 5;
std::string_view FamilyName(Family family);

// Throws the plumb::Error that `status` (not ok) means; `doing` completes "could not ...".
[[noreturn]] void ThrowStatus(const rocksdb::Status& status, const std::string& path,
                              const std::string& doing);

// RocksDB has no code for it: another process, or another part of this one, holds the folder.
bool IsOpenElsewhere(const rocksdb::Status& status);

class RocksFolder {
 public:
  struct Options {
    bool read_only = false;
    bool create = true;
    int64_t write_buffer_mb = 16;
    // a disk with faults (tests/replay/faulty_disk.h); outlives the folder
    rocksdb::Env* env_for_test = nullptr;
    // what a power cut then takes shows that the test would notice
    bool never_sync_for_test = false;
    // a copy whose log was cut at its damage (replay/store/recover.h): its MANIFEST knows of more
    bool cut_log = false;
  };
  RocksFolder() = default;
  ~RocksFolder();
  RocksFolder(const RocksFolder&) = delete;
  RocksFolder& operator=(const RocksFolder&) = delete;

  void Open(const std::string& path, const Options& options);
  // All or nothing; with `sync` durable on return. After kNoSpace the next call tries to go on,
  // after any other I/O error every call throws.
  void Write(rocksdb::WriteBatch& batch, bool sync);
  void Flush();

  bool writable() const { return opened_ && !options_.read_only; }
  // For batches. nullptr: a store that is open read-only and was made before this family existed.
  rocksdb::ColumnFamilyHandle* handle(Family family) const {
    return ids_[static_cast<size_t>(family)].get();
  }
  rocksdb::ColumnFamilyHandle* meta() const { return handle(Family::kMeta); }

  // REQUIRES of these three: handle(family) is not null.
  // A value where it lies; keeps the database open.
  struct Pinned {
    std::shared_lock<std::shared_mutex> lock;
    rocksdb::PinnableSlice value;  // freed first
  };
  rocksdb::Status Get(Family family, std::string_view key, Pinned* pinned) const;
  // An iterator that keeps the database open.
  class Cursor {
   public:
    rocksdb::Iterator* operator->() const { return it_.get(); }

   private:
    friend class RocksFolder;
    std::shared_lock<std::shared_mutex> lock_;
    std::unique_ptr<rocksdb::Iterator> it_;  // freed first
  };
  Cursor Iterate(Family family) const;
  // call(database, RocksDB's own handle of the family).
  template <class Call>
  auto With(Family family, Call call) const {
    const auto lock = KeepOpen();
    return call(*db_, handles_[static_cast<size_t>(family)]);
  }

 private:
  friend class TableFile;
  // throws kNoSpace while the full disk keeps it closed
  std::shared_lock<std::shared_mutex> KeepOpen() const;
  void RequireWritable();
  void NoteFailure(const rocksdb::Status& status);
  void OpenDb();
  void CloseDb();
  void Reopen();  // returns once writing can go on, else throws

  // Constant once open.
  std::string path_;
  Options options_;
  bool opened_ = false;
  std::vector<std::unique_ptr<rocksdb::ColumnFamilyHandle>> ids_;  // by Family

  // held for writing only by Reopen; nothing is locked behind it
  mutable std::shared_mutex open_mu_;
  // Guarded by open_mu_.
  // nullptr: closed because the disk was full
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;  // by Family; owned, freed before db_
  std::vector<rocksdb::ColumnFamilyHandle*>
      other_handles_;  // "default" and what a newer format added

  Mutex reopen_mu_;                  // before open_mu_
  std::atomic<bool> full_{false};    // the last write found no space: open again before the next
  std::atomic<bool> failed_{false};  // an I/O error: what the disk holds is unknown
};

// Records of one family on their way into a table file of their own: written once instead of to
// log, memory and table, and none of them in memory. The folder knows nothing of them before
// TakeIn. Slower than RocksFolder::Write below some MB; one at a time.
class TableFile {
 public:
  TableFile(RocksFolder* folder, Family family);
  ~TableFile();
  TableFile(const TableFile&) = delete;
  TableFile& operator=(const TableFile&) = delete;
  void Put(std::string_view key, std::string_view value);  // REQUIRES: keys in ascending order
  void PutAll(const rocksdb::WriteBatch& batch);           // its puts, with the same requirement
  uint64_t bytes() const { return bytes_; }                // given to Put
  // All or nothing, durable on return. What was stored under the same keys before is covered.
  void TakeIn();

 private:
  [[noreturn]] void Fail(const rocksdb::Status& status, const char* doing);
  RocksFolder* const folder_;
  const Family family_;
  const std::string path_;
  const std::unique_ptr<rocksdb::Env> disk_;  // aligned_disk.h; outlives file_
  std::unique_ptr<rocksdb::SstFileWriter> file_;
  uint64_t bytes_ = 0;
};

}  // namespace plumb::replay
