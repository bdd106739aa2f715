// The RocksDB folder under a store: the settings of docs/reliability.md, opening, writing and what can go wrong there.
//
// Thread safety: Write may be called concurrently (RocksDB's write group shares one sync among the callers).
// Errors: see replay/store.h; ThrowStatus maps RocksDB's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <rocksdb/db.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/write_batch.h>

namespace plumb::replay {

enum class Family : uint8_t { kMeta = 0, kPrompts, kLeases, kGroups, kEval, kPreferences, kLogprobs, kScores, kPlans };
inline constexpr int kFamilies = 9;
inline constexpr int kFirstFamilies = 5;  // those that every store has; a store made earlier lacks the rest until written
std::string_view FamilyName(Family family);

// Throws the plumb::Error that `status` (not ok) means; `doing` completes "could not ...".
[[noreturn]] void ThrowStatus(const rocksdb::Status& status, const std::string& path, const std::string& doing);

class RocksFolder {
 public:
  struct Options {
    bool read_only = false;
    bool create = true;
    int64_t write_buffer_mb = 16;
  };
  RocksFolder() = default;
  ~RocksFolder();
  RocksFolder(const RocksFolder&) = delete;
  RocksFolder& operator=(const RocksFolder&) = delete;

  void Open(const std::string& path, const Options& options);
  // All or nothing; with `sync` durable on return. After kNoSpace the next call tries to go on, after any other I/O
  // error every call throws.
  void Write(rocksdb::WriteBatch& batch, bool sync);
  void Flush();

  bool writable() const { return db_ != nullptr && !read_only_; }
  rocksdb::DB& db() const { return *db_; }
  // nullptr: a store that is open read-only and was made before this family existed.
  rocksdb::ColumnFamilyHandle* handle(Family family) const { return handles_[static_cast<size_t>(family)]; }
  rocksdb::ColumnFamilyHandle* meta() const { return handle(Family::kMeta); }

 private:
  friend class TableFile;
  void RequireWritable();
  void NoteFailure(const rocksdb::Status& status);
  void Resume();  // returns once writing can go on, else throws

  std::string path_;
  uint64_t needed_bytes_ = 0;  // free space below which writing is not tried again after a full disk
  bool read_only_ = false;
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;        // by Family; owned, freed before db_
  std::vector<rocksdb::ColumnFamilyHandle*> other_handles_;  // "default" and what a newer format added
  std::mutex resume_mu_;
  std::atomic<bool> full_{false};    // the last write found no space: resume before the next
  std::atomic<bool> failed_{false};  // an I/O error: what the disk holds is unknown
};

// Records of one family on their way into a table file of their own: written once instead of to log, memory and table, and none
// of them in memory. The folder knows nothing of them before TakeIn. Slower than RocksFolder::Write below some MB; one at a time.
class TableFile {
 public:
  TableFile(RocksFolder* folder, Family family);
  ~TableFile();
  TableFile(const TableFile&) = delete;
  TableFile& operator=(const TableFile&) = delete;
  void Put(std::string_view key, std::string_view value);  // REQUIRES: keys in ascending order
  void PutAll(const rocksdb::WriteBatch& batch);            // its puts, with the same requirement
  uint64_t bytes() const { return bytes_; }                 // given to Put
  // All or nothing, durable on return. What was stored under the same keys before is covered.
  void TakeIn();

 private:
  [[noreturn]] void Fail(const rocksdb::Status& status, const char* doing);
  RocksFolder* const folder_;
  const Family family_;
  const std::string path_;
  std::unique_ptr<rocksdb::SstFileWriter> file_;
  uint64_t bytes_ = 0;
};

}  // namespace plumb::replay
