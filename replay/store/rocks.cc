#include "replay/store/rocks.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <filesystem>

#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/place.h"
#include "common/base/size_text.h"
#include "replay/store/aligned_disk.h"
#include "replay/store/log_check.h"

namespace plumb::replay {
namespace {

using rocksdb::Status;

constexpr std::string_view kNames[kFamilies] = {
    "meta", "prompts", "leases", "groups", "eval", "preferences", "logprobs", "scores", "plans"};

constexpr char kIngestFile[] = "ingest.tmp";  // a killed process may leave it behind

// RocksDB's own log never touches the data disk: with a LOG file on a full disk the library aborts.
// Its warnings go to the role's log, the rest is not kept.
class WarningLogger : public rocksdb::Logger {
 public:
  WarningLogger() : rocksdb::Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void LogHeader(const char*, va_list) override {}
  void Logv(const char* format, va_list arguments) override {
    char line[1024];
    std::vsnprintf(line, sizeof(line), format, arguments);
    std::string text(line);
    text.resize(std::min(text.find('\n'), text.size()));  // a whole edit of the MANIFEST may follow
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    // Nothing to do about the first two: table files that are taken in (TableFile) have no ID until
    // they are part of the store, and a snapshot keeps files from being deleted twice over. A store
    // that does not open is an error of ours, which says more.
    for (const char* known : {"without unique ID", "File Deletions", "DB::Open() failed"}) {
      if (text.find(known) != std::string::npos) return;
    }
    if (!text.empty()) LogWarning("rocksdb: " + text);
  }
};

// After a full disk RocksDB goes on by a thread of its own, which may wait for ever;
// RocksFolder::Reopen is the way here.
class OnlyByHand : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, Status, bool* by_itself) override {
    *by_itself = false;
  }
};

rocksdb::Options StoreSettings(const RocksFolder::Options& o) {
  rocksdb::Options options;
  options.create_if_missing = o.create;
  // A flipped byte in the middle of the log must stop the start; only a torn last record is what a
  // crash leaves.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.recycle_log_file_num = 0;
  options.wal_compression = rocksdb::kNoCompression;
  options.manual_wal_flush = false;
  options.max_background_flushes = 1;
  options.max_background_compactions = 1;
  options.listeners.push_back(std::make_shared<OnlyByHand>());
  options.max_bgerror_resume_count = 0;
  options.track_and_verify_wals_in_manifest = true;
  options.paranoid_checks = true;
  options.paranoid_file_checks = true;  // every table file is read back once it is written
  options.info_log = std::make_shared<WarningLogger>();
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.write_buffer_size = static_cast<size_t>(std::max<int64_t>(o.write_buffer_mb, 1)) << 20;
  options.max_total_wal_size = 4 * options.write_buffer_size;
  options.compression = rocksdb::kNoCompression;
  options.max_open_files = 256;
  if (o.env_for_test != nullptr) options.env = o.env_for_test;
  if (o.cut_log) {
    options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
    options.track_and_verify_wals_in_manifest = false;
  }
  return options;
}

// The folder and those above it that are not there, each durable in the one above: what is synced
// below would be lost with it.
void MakeFolder(const std::filesystem::path& folder) {
  if (folder.empty() || RealFileSystem().Exists(folder.string())) return;
  const std::filesystem::path parent = folder.parent_path();
  MakeFolder(parent);
  RealFileSystem().CreateDirectories(folder.string());
  RealFileSystem().SyncDirectory(parent.empty() ? "." : parent.string());
}

// A column family in a batch: its number is all that counts, and it survives that the database is
// opened again.
class FamilyId : public rocksdb::ColumnFamilyHandle {
 public:
  FamilyId(std::string name, uint32_t id) : name_(std::move(name)), id_(id) {}
  const std::string& GetName() const override { return name_; }
  uint32_t GetID() const override { return id_; }
  Status GetDescriptor(rocksdb::ColumnFamilyDescriptor*) override { return Status::NotSupported(); }
  const rocksdb::Comparator* GetComparator() const override {
    return rocksdb::BytewiseComparator();
  }

 private:
  const std::string name_;
  const uint32_t id_;
};

// What opening and the first writes need: the log is read back into a table file, and another log
// begins.
uint64_t NeededBytes(const std::string& path, uint64_t write_buffer) {
  uint64_t bytes = write_buffer + (uint64_t{1} << 20);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
    const auto size = entry.file_size(ignored);
    if (entry.path().extension() == ".log" && !ignored) bytes += size;
  }
  return bytes;
}

// Whether the folder has rows of a store, by RocksDB's names of such files: a folder of data may
// have logs of its own. A MANIFEST alone is of a store that a full or faulty disk kept from
// beginning.
bool HoldsData(const std::filesystem::path& folder) {
  const auto numbered = [](const std::filesystem::path& file) {
    const std::string stem = file.stem().string();
    return stem.size() >= 6 && stem.find_first_not_of("0123456789") == std::string::npos;
  };
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::filesystem::path file = entry.path().filename();
    if (!numbered(file)) continue;
    if (file.extension() == ".sst") return true;
    if (file.extension() == ".log" && entry.file_size(ignored) > 0 && !ignored) return true;
  }
  return false;
}

}  // namespace

std::string_view FamilyName(Family family) { return kNames[static_cast<size_t>(family)]; }

void ThrowStatus(const Status& status, const std::string& path, const std::string& doing) {
  const std::string text = "could not " + doing + ": " + status.ToString();
  if (status.IsNoSpace()) {
    throw Error(ErrorCode::kNoSpace,
                text + "; nothing was stored: free some space, writing goes on by itself", path);
  }
  if (status.IsCorruption()) {
    throw Error(ErrorCode::kCorruption,
                text +
                    "; nothing was changed: copy the folder before you try anything, `plumb store "
                    "inspect` reads what can be read",
                path);
  }
  if (status.IsNotFound()) throw Error(ErrorCode::kNotFound, text, path);
  if (status.IsBusy() || status.IsTimedOut() || status.IsTryAgain())
    throw Error(ErrorCode::kUnavailable, text, path);
  if (status.IsInvalidArgument() || status.IsNotSupported())
    throw Error(ErrorCode::kUnsupported, text, path);
  throw Error(ErrorCode::kIo, text, path);
}

bool IsOpenElsewhere(const Status& status) {
  if (!status.IsIOError()) return false;
  const std::string text = status.ToString();
  return text.find("lock hold by current process") != std::string::npos ||
         (text.find("While lock file") != std::string::npos &&
          text.find("Resource temporarily unavailable") != std::string::npos);
}

RocksFolder::~RocksFolder() { CloseDb(); }

void RocksFolder::CloseDb() {
  if (!db_) return;
  for (auto* handle : handles_) db_->DestroyColumnFamilyHandle(handle);
  for (auto* handle : other_handles_) db_->DestroyColumnFamilyHandle(handle);
  handles_.clear();
  other_handles_.clear();
  db_->Close();
  db_.reset();
}

void RocksFolder::Open(const std::string& path, const Options& options) {
  path_ = path;
  options_ = options;
  OpenDb();
  opened_ = true;
}

void RocksFolder::OpenDb() {
  const Options& o = options_;
  const std::string& path = path_;
  const std::filesystem::path folder(path);
  std::error_code ignored;
  const bool exists = std::filesystem::exists(folder / "CURRENT", ignored);
  if (!exists) {
    if (std::filesystem::is_directory(folder, ignored) && HoldsData(folder)) {
      throw Error(ErrorCode::kCorruption,
                  "has table or log files but no CURRENT file: it was lost, a new store here would "
                  "hide them",
                  path);
    }
    const Place place = PlaceOf(path);
    if (o.read_only || !o.create) {
      throw Error(ErrorCode::kNotFound,
                  place == Place::kNothing ? "there is no store here (a run's store is the folder "
                                             "'store' in its run folder)"
                                           : NotWhatIsWanted(path, "a store"),
                  path);
    }
    // A store among the files of something else would be taken for a part of it.
    if (place != Place::kNothing && place != Place::kEmptyFolder && place != Place::kFolder)
      throw Error(ErrorCode::kInvalidArgument, NotWhatIsWanted(path, "a store"), path);
    MakeFolder(std::filesystem::absolute(folder));
  } else {
    CheckLogs(path);
  }
  const rocksdb::Options settings = StoreSettings(o);
  std::vector<std::string> names = {rocksdb::kDefaultColumnFamilyName};
  if (exists) {
    const Status status = rocksdb::DB::ListColumnFamilies(settings, path, &names);
    if (!status.ok()) ThrowStatus(status, path, "read the store's manifest");
  }
  // All that are there must be opened; a newer format may have more, and then its version is what
  // we want to report.
  std::vector<std::string> missing;
  for (size_t i = 0; i < kFamilies; ++i) {
    const std::string name(kNames[i]);
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    if (o.read_only && i >= kFirstFamilies) continue;
    if (o.read_only)
      throw Error(ErrorCode::kNotFound, "no store of Plumb: it has no column family '" + name + "'",
                  path);
    missing.push_back(name);
  }
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (const std::string& name : names)
    descriptors.emplace_back(name, rocksdb::ColumnFamilyOptions(settings));
  std::vector<rocksdb::ColumnFamilyHandle*> opened;
  rocksdb::DB* db = nullptr;
  const Status status =
      o.read_only ? rocksdb::DB::OpenForReadOnly(settings, path, descriptors, &opened, &db)
                  : rocksdb::DB::Open(settings, path, descriptors, &opened, &db);
  if (!status.ok()) {
    if (IsOpenElsewhere(status)) {
      throw Error(ErrorCode::kConflict,
                  "the store is open elsewhere, by a run that goes on or by another command: wait "
                  "for it, stop it, or name another folder; `plumb store inspect`, `data export` "
                  "and `data mine` read it meanwhile",
                  path);
    }
    ThrowStatus(status, path, "open the store");
  }
  db_.reset(db);
  if (!missing.empty()) {
    // Left to DB::Open, each of them would cost a file of options of its own, written, synced and
    // read back.
    std::vector<rocksdb::ColumnFamilyHandle*> made;
    const Status added =
        db_->CreateColumnFamilies(rocksdb::ColumnFamilyOptions(settings), missing, &made);
    opened.insert(opened.end(), made.begin(), made.end());
    names.insert(names.end(), missing.begin(), missing.end());
    if (!added.ok()) {
      other_handles_ = std::move(opened);
      CloseDb();
      ThrowStatus(added, path, "open the store");
    }
  }
  std::error_code none;
  if (!o.read_only) std::filesystem::remove(folder / kIngestFile, none);
  handles_.assign(kFamilies, nullptr);
  for (size_t i = 0; i < names.size(); ++i) {
    const auto found = std::find(std::begin(kNames), std::end(kNames), names[i]);
    if (found == std::end(kNames)) {
      other_handles_.push_back(opened[i]);
    } else {
      handles_[static_cast<size_t>(found - std::begin(kNames))] = opened[i];
    }
  }
  if (opened_) return;  // batches hold the numbers of the first time, which are the same
  for (auto* handle : handles_)
    ids_.push_back(handle ? std::make_unique<FamilyId>(handle->GetName(), handle->GetID())
                          : nullptr);
}

// What was acknowledged is in the log, synced: closing loses nothing, and opening reads it back and
// begins another log, behind whatever the full disk left at the end of this one.
void RocksFolder::Reopen() {
  MutexLock one(reopen_mu_);
  if (!full_) return;  // another thread was here
  const uint64_t needed = NeededBytes(path_, StoreSettings(options_).write_buffer_size);
  std::error_code failed;
  const auto space = std::filesystem::space(path_, failed);
  if (!failed && space.available < needed) {
    throw Error(
        ErrorCode::kNoSpace,
        "the disk is still full (" + SizeText(static_cast<int64_t>(space.available)) + " free, " +
            SizeText(static_cast<int64_t>(needed)) + " needed to go on); nothing was stored: " +
            (space.capacity < needed
                 ? "its file system, of " + SizeText(static_cast<int64_t>(space.capacity)) +
                       ", is too small for a store; move the run's folder to another and resume"
                 : "free some space, writing goes on by itself"),
        path_);
  }
  std::unique_lock lock(open_mu_);
  CloseDb();
  OpenDb();
  full_ = false;
}

std::shared_lock<std::shared_mutex> RocksFolder::KeepOpen() const {
  std::shared_lock lock(open_mu_);
  if (!db_) {
    throw Error(ErrorCode::kNoSpace,
                "the store is closed because the disk was full: free some space, the next write "
                "opens it again",
                path_);
  }
  return lock;
}

Status RocksFolder::Get(Family family, std::string_view key, Pinned* pinned) const {
  pinned->lock = KeepOpen();
  return db_->Get(rocksdb::ReadOptions(), handles_[static_cast<size_t>(family)],
                  rocksdb::Slice(key.data(), key.size()), &pinned->value);
}

RocksFolder::Cursor RocksFolder::Iterate(Family family) const {
  Cursor cursor;
  cursor.lock_ = KeepOpen();
  cursor.it_.reset(db_->NewIterator(rocksdb::ReadOptions(), handles_[static_cast<size_t>(family)]));
  return cursor;
}

void RocksFolder::RequireWritable() {
  if (options_.read_only)
    throw Error(ErrorCode::kInvalidArgument, "the store is open for reading only", path_);
  if (failed_) {
    throw Error(ErrorCode::kIo,
                "the store stopped after an I/O error: what the disk holds is unknown until it is "
                "opened again "
                "(restart the role, then look at the disk)",
                path_);
  }
  if (full_) Reopen();
}

void RocksFolder::NoteFailure(const Status& status) {
  if (status.IsNoSpace()) {
    full_ = true;
  } else if (status.IsIOError() || status.IsCorruption()) {
    failed_ = true;
  }
}

void RocksFolder::Write(rocksdb::WriteBatch& batch, bool sync) {
  RequireWritable();
  rocksdb::WriteOptions how;
  how.sync = sync && !options_.never_sync_for_test;
  const auto lock = KeepOpen();
  const Status status = db_->Write(how, &batch);
  if (status.ok()) return;
  NoteFailure(status);
  ThrowStatus(status, path_, "write");
}

namespace {

rocksdb::EnvOptions TableFileWriting() {
  rocksdb::EnvOptions how;
  // the disk begins while the rest is still being made: Finish has little left to wait for
  how.bytes_per_sync = 4 << 20;
  // the aligned disk gathers what is written: not twice
  how.writable_file_max_buffer_size = 4 << 10;
  return how;
}

rocksdb::Options TableFileSettings(const RocksFolder::Options& options, rocksdb::Env* disk) {
  rocksdb::Options settings = StoreSettings(options);
  settings.env = disk;
  rocksdb::BlockBasedTableOptions table;
  table.block_size = size_t{32} << 10;  // rows of a dataset are mostly read in order
  settings.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return settings;
}

}  // namespace

TableFile::TableFile(RocksFolder* folder, Family family)
    : folder_(folder),
      family_(family),
      path_(folder->path_ + "/" + kIngestFile),
      disk_(MakeAlignedDisk(StoreSettings(folder->options_).env)) {
  folder_->RequireWritable();
  // Where RocksDB could not delete it after the last time, it is another name of a table file in
  // use: never write into it.
  std::error_code kept;
  std::filesystem::remove(path_, kept);
  if (kept)
    throw Error(ErrorCode::kIo,
                "could not remove what an earlier table file left behind: " + kept.message(),
                path_);
  // The last argument but its default: what was written stays cached for the reading back, and for
  // whoever trains next.
  file_ = std::make_unique<rocksdb::SstFileWriter>(
      TableFileWriting(), TableFileSettings(folder_->options_, disk_.get()),
      folder_->handle(family),
      /*invalidate_page_cache=*/false);
  const Status status = file_->Open(path_);
  if (!status.ok()) Fail(status, "make a table file");
}

TableFile::~TableFile() {
  file_.reset();
  std::error_code ignored;  // after TakeIn it is not there
  std::filesystem::remove(path_, ignored);
}

void TableFile::Fail(const Status& status, const char* doing) {
  ThrowStatus(status, folder_->path_, doing);
}

void TableFile::Put(std::string_view key, std::string_view value) {
  const Status status = file_->Put(rocksdb::Slice(key.data(), key.size()),
                                   rocksdb::Slice(value.data(), value.size()));
  if (!status.ok()) Fail(status, "write a table file");  // the database itself was not touched
  bytes_ += key.size() + value.size();
}

void TableFile::PutAll(const rocksdb::WriteBatch& batch) {
  struct IntoFile : rocksdb::WriteBatch::Handler {
    explicit IntoFile(rocksdb::SstFileWriter* to) : file(to) {}
    Status PutCF(uint32_t, const rocksdb::Slice& key, const rocksdb::Slice& value) override {
      return file->Put(key, value);
    }
    rocksdb::SstFileWriter* const file;
  };
  IntoFile into(file_.get());
  const Status status = batch.Iterate(&into);
  if (!status.ok()) Fail(status, "write a table file");
  bytes_ += batch.GetDataSize();
}

void TableFile::TakeIn() {
  Status status = file_->Finish();  // read back and synced
  if (status.IsCorruption()) folder_->NoteFailure(status);
  if (!status.ok()) Fail(status, "write a table file");
  rocksdb::IngestExternalFileOptions how;
  how.move_files = true;
  how.write_global_seqno = false;  // the file stays as it was summed
  const auto lock = folder_->KeepOpen();
  status = folder_->db_->IngestExternalFile(folder_->handles_[static_cast<size_t>(family_)],
                                            {path_}, how);
  if (status.ok()) return;
  folder_->NoteFailure(status);
  Fail(status, "take in a table file");
}

void RocksFolder::Flush() {
  RequireWritable();
  const auto lock = KeepOpen();
  for (auto* handle : handles_) {
    const Status status = db_->Flush(rocksdb::FlushOptions(), handle);
    if (status.ok()) continue;
    NoteFailure(status);
    ThrowStatus(status, path_, "flush");
  }
}

}  // namespace plumb::replay
