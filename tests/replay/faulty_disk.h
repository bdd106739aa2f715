// A disk for RocksDB that fails on purpose and forgets what was not synced when its power is cut.
//
//   FaultyDisk disk;
//   disk.Plan(FaultyDisk::Fault::kSync, 40);  // the first sync from the 40th operation on fails
//   { open a store with env_for_test = disk.env(), write until something throws }
//   disk.CutPower(random);                    // files now hold what a disk may hold afterwards
//
// Files are real ones (use a folder in memory); operations that change something are counted over
// all files and threads. What a power cut leaves of a file is its synced part and a random part of
// what was appended since; names made, changed or deleted since the folder's last fsync are undone
// from a random one of them on, the newest first. Which thread does the n-th operation depends on
// the scheduler: a seed repeats the plan, not each interleaving.
// Thread safety: all methods but Plan and CutPower, which need the store closed. Ownership:
// outlives its files.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/system_clock.h>

#include "common/base/rng.h"

namespace plumb::replay {

class FaultyFiles : public rocksdb::FileSystemWrapper {
 public:
  using IOStatus = rocksdb::IOStatus;
  enum class Fault : uint8_t {
    kNone,
    kPower,   // this operation and all after it fail
    kAppend,  // EIO, nothing written
    kTorn,    // EIO after a part was written
    kSync,    // EIO, and what was not synced is gone although later syncs succeed
    kRename,  // EIO
    kFolder,  // EIO from the fsync of the folder
    kCreate,  // EIO
    kDelete,  // EIO
    kRead,    // EIO
    kFull,    // ENOSPC from appends (after a part) and creations, for some operations
  };
  static constexpr int kFaults = 11;

  FaultyFiles() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FaultyFiles"; }

  // `fault` hits the first operation of its kind from the `at`-th from now on; kFull stays for
  // `length` operations.
  void Plan(Fault fault, int64_t at, int64_t length = 1) {
    fault_ = fault;
    from_ = operations_ + at;
    until_ = fault == Fault::kFull ? from_ + length : from_;
    fired_ = false;
  }
  bool fired() const { return fired_; }
  int64_t operations() const { return operations_; }

  // REQUIRES: the store is closed.
  void CutPower(RandomStream& random) {
    std::lock_guard lock(mu_);
    Plan(Fault::kNone, 0);
    const size_t kept =
        names_.empty() ? 0 : random.NextBelow(static_cast<uint32_t>(names_.size()) + 1);
    for (; names_.size() > kept; names_.pop_back()) Undo(names_.back());
    for (const auto& [path, file] : files_) {
      std::error_code gone;
      const uint64_t size = std::filesystem::file_size(path, gone);
      if (gone || size <= file.synced) continue;
      const uint64_t loose =
          file.lost ? 0 : random.NextBelow(static_cast<uint32_t>(size - file.synced) + 1);
      std::filesystem::resize_file(path, file.synced + loose);
    }
    Forget();
  }
  // The process ended, the machine did not: everything that was written is there. REQUIRES: the
  // store is closed.
  void EndProcess() {
    std::lock_guard lock(mu_);
    Plan(Fault::kNone, 0);
    Forget();
  }

  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* out,
                           rocksdb::IODebugContext* debug) override {
    if (IOStatus s = Before(Kind::kCreate, path); !s.ok()) return s;
    std::unique_ptr<rocksdb::FSWritableFile> file;
    const bool anew = !std::filesystem::exists(path);
    IOStatus s = target()->NewWritableFile(path, options, &file, debug);
    if (!s.ok()) return s;
    std::lock_guard lock(mu_);
    files_[path] = {};
    if (anew) names_.push_back({.made = path});
    *out = std::make_unique<Writable>(this, path, std::move(file));
    return s;
  }
  // To sync a table file that was taken in.
  IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* out,
                              rocksdb::IODebugContext* debug) override {
    if (IOStatus s = Before(Kind::kCreate, path); !s.ok()) return s;
    std::unique_ptr<rocksdb::FSWritableFile> file;
    IOStatus s = target()->ReopenWritableFile(path, options, &file, debug);
    if (s.ok()) *out = std::make_unique<Writable>(this, path, std::move(file));
    return s;
  }
  IOStatus ReuseWritableFile(const std::string& path, const std::string&,
                             const rocksdb::FileOptions&, std::unique_ptr<rocksdb::FSWritableFile>*,
                             rocksdb::IODebugContext*) override {
    return IOStatus::NotSupported("the store reuses no log", path);
  }
  IOStatus NewRandomAccessFile(const std::string& path, const rocksdb::FileOptions& options,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* out,
                               rocksdb::IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSRandomAccessFile> file;
    IOStatus s = target()->NewRandomAccessFile(path, options, &file, debug);
    if (s.ok()) *out = std::make_unique<Readable>(this, path, std::move(file));
    return s;
  }
  IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                        std::unique_ptr<rocksdb::FSDirectory>* out,
                        rocksdb::IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSDirectory> folder;
    IOStatus s = target()->NewDirectory(path, options, &folder, debug);
    if (s.ok()) *out = std::make_unique<Folder>(this, path, std::move(folder));
    return s;
  }
  IOStatus RenameFile(const std::string& from, const std::string& to,
                      const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
    if (IOStatus s = Before(Kind::kRename, from); !s.ok()) return s;
    std::lock_guard lock(mu_);
    Change name{.renamed = from, .to = to};
    if (std::filesystem::exists(to)) {
      std::ifstream in(to, std::ios::binary);
      name.old.assign(std::istreambuf_iterator<char>(in), {});
      name.replaced = true;
    }
    IOStatus s = target()->RenameFile(from, to, options, debug);
    if (!s.ok()) return s;
    MoveState(from, to);
    names_.push_back(std::move(name));
    return s;
  }
  IOStatus LinkFile(const std::string& from, const std::string& to,
                    const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
    if (IOStatus s = Before(Kind::kRename, from); !s.ok()) return s;
    std::lock_guard lock(mu_);
    IOStatus s = target()->LinkFile(from, to, options, debug);
    if (!s.ok()) return s;
    names_.push_back({.made = to});
    if (const auto file = files_.find(from); file != files_.end()) files_[to] = file->second;
    return s;
  }
  IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions&,
                      rocksdb::IODebugContext*) override {
    if (IOStatus s = Before(Kind::kDelete, path); !s.ok()) return s;
    std::lock_guard lock(mu_);
    // until the folder is synced
    const std::string kept = path + ".deleted" + std::to_string(deleted_++);
    std::error_code failed;
    std::filesystem::rename(path, kept, failed);
    if (failed) return IOStatus::PathNotFound(path);
    MoveState(path, kept);
    names_.push_back({.deleted = path, .to = kept});
    return IOStatus::OK();
  }
  // Nobody but this class sees what it keeps of deleted files.
  IOStatus GetChildren(const std::string& folder, const rocksdb::IOOptions& options,
                       std::vector<std::string>* names, rocksdb::IODebugContext* debug) override {
    IOStatus s = target()->GetChildren(folder, options, names, debug);
    if (s.ok())
      std::erase_if(*names, [](const std::string& name) {
        return name.find(".deleted") != std::string::npos;
      });
    return s;
  }

 private:
  enum class Kind : uint8_t { kAppend, kSync, kRename, kFolder, kCreate, kDelete, kRead };
  struct File {
    uint64_t synced = 0;
    bool lost = false;  // a sync failed: nothing behind `synced` will ever be on the disk
  };
  struct Change {  // one of: made | renamed -> to | deleted (kept under `to`)
    std::string made = {}, renamed = {}, deleted = {}, to = {}, old = {};
    bool replaced = false;
  };

  class Writable : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    Writable(FaultyFiles* disk, std::string path, std::unique_ptr<rocksdb::FSWritableFile> file)
        : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk), path_(std::move(path)) {}
    IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                    rocksdb::IODebugContext* debug) override {
      bool part = false;
      const IOStatus s = disk_->Before(Kind::kAppend, path_, &part);
      if (s.ok()) return target()->Append(data, options, debug);
      if (part)
        target()
            ->Append(rocksdb::Slice(data.data(), data.size() / 2), options, debug)
            .PermitUncheckedError();
      return s;
    }
    IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                    const rocksdb::DataVerificationInfo&, rocksdb::IODebugContext* debug) override {
      return Append(data, options, debug);
    }
    IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
      return disk_->SyncFile(path_);
    }
    IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
      return disk_->SyncFile(path_);
    }
    IOStatus RangeSync(uint64_t, uint64_t, const rocksdb::IOOptions&,
                       rocksdb::IODebugContext*) override {
      return IOStatus::OK();
    }
    IOStatus Allocate(uint64_t, uint64_t, const rocksdb::IOOptions&,
                      rocksdb::IODebugContext*) override {
      return IOStatus::OK();
    }

   private:
    FaultyFiles* const disk_;
    const std::string path_;
  };
  class Readable : public rocksdb::FSRandomAccessFileOwnerWrapper {
   public:
    Readable(FaultyFiles* disk, std::string path, std::unique_ptr<rocksdb::FSRandomAccessFile> file)
        : FSRandomAccessFileOwnerWrapper(std::move(file)), disk_(disk), path_(std::move(path)) {}
    IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions& options,
                  rocksdb::Slice* result, char* scratch,
                  rocksdb::IODebugContext* debug) const override {
      if (IOStatus s = disk_->Before(Kind::kRead, path_); !s.ok()) return s;
      return target()->Read(offset, n, options, result, scratch, debug);
    }

   private:
    FaultyFiles* const disk_;
    const std::string path_;
  };
  class Folder : public rocksdb::FSDirectory {
   public:
    Folder(FaultyFiles* disk, std::string path, std::unique_ptr<rocksdb::FSDirectory> folder)
        : disk_(disk), path_(std::move(path)), folder_(std::move(folder)) {}
    IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
      if (IOStatus s = disk_->Before(Kind::kFolder, path_); !s.ok()) return s;
      std::lock_guard lock(disk_->mu_);
      disk_->DropDeleted();
      disk_->names_.clear();
      return IOStatus::OK();
    }
    IOStatus Close(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
      return folder_->Close(options, debug);
    }
    size_t GetUniqueId(char* id, size_t max) const override {
      return folder_->GetUniqueId(id, max);
    }

   private:
    FaultyFiles* const disk_;
    const std::string path_;
    const std::unique_ptr<rocksdb::FSDirectory> folder_;
  };

  // What becomes of the next operation; `part`: an append writes half of its bytes first.
  IOStatus Before(Kind kind, const std::string& path, bool* part = nullptr) {
    std::lock_guard lock(mu_);
    const int64_t now = kind == Kind::kRead ? operations_.load() : operations_++;
    if (now < from_ || (fired_ && fault_ != Fault::kPower && now >= until_)) return IOStatus::OK();
    const auto hit = [&](Kind of) { return kind == of; };
    bool fires = false;
    switch (fault_) {
      case Fault::kNone: break;
      case Fault::kPower: fires = true; break;
      case Fault::kAppend:
      case Fault::kTorn: fires = hit(Kind::kAppend); break;
      case Fault::kSync: fires = hit(Kind::kSync); break;
      case Fault::kRename: fires = hit(Kind::kRename); break;
      case Fault::kFolder: fires = hit(Kind::kFolder); break;
      case Fault::kCreate: fires = hit(Kind::kCreate); break;
      case Fault::kDelete: fires = hit(Kind::kDelete); break;
      case Fault::kRead: fires = hit(Kind::kRead); break;
      case Fault::kFull: fires = (hit(Kind::kAppend) || hit(Kind::kCreate)) && now < until_; break;
    }
    if (!fires) return IOStatus::OK();
    if (part != nullptr)
      *part =
          fault_ == Fault::kTorn || fault_ == Fault::kFull || (fault_ == Fault::kPower && !fired_);
    fired_ = true;
    if (fault_ == Fault::kFull)
      return IOStatus::NoSpace("No space left on device (a fault of the test)", path);
    return IOStatus::IOError("Input/output error (a fault of the test)", path);
  }

  IOStatus SyncFile(const std::string& path) {
    const IOStatus s = Before(Kind::kSync, path);
    std::lock_guard lock(mu_);
    const auto file = files_.find(path);
    if (file == files_.end()) return s;
    if (!s.ok()) file->second.lost = true;
    std::error_code gone;
    const uint64_t size = std::filesystem::file_size(path, gone);
    if (!gone && !file->second.lost) file->second.synced = size;
    return s;
  }

  // REQUIRES: mu_, of these four.
  void MoveState(const std::string& from, const std::string& to) {
    files_.erase(to);
    auto file = files_.extract(from);
    if (file.empty()) return;
    file.key() = to;
    files_.insert(std::move(file));
  }
  void Undo(const Change& name) {
    std::error_code ignored;
    if (!name.made.empty()) std::filesystem::remove(name.made, ignored);
    const std::string& before = name.deleted.empty() ? name.renamed : name.deleted;
    if (before.empty()) return;
    std::filesystem::rename(name.to, before, ignored);
    MoveState(name.to, before);
    if (name.replaced) std::ofstream(name.to, std::ios::binary) << name.old;
  }
  void DropDeleted() {
    std::error_code ignored;
    for (const Change& name : names_) {
      if (!name.deleted.empty()) std::filesystem::remove(name.to, ignored);
    }
  }
  void Forget() {
    DropDeleted();
    names_.clear();
    files_.clear();
  }

  std::mutex mu_;
  std::atomic<int64_t> operations_{0};
  std::atomic<bool> fired_{false};
  // Constant while a store is open.
  Fault fault_ = Fault::kNone;
  int64_t from_ = 0, until_ = 0;
  // Guarded by mu_.
  // by path: those written since the last CutPower or EndProcess
  std::map<std::string, File> files_;
  std::vector<Change> names_;  // since the folder's last fsync, oldest first
  uint64_t deleted_ = 0;
};

// RocksDB sleeps a second after a failed flush; nobody here waits for that.
class ImpatientClock : public rocksdb::SystemClockWrapper {
 public:
  ImpatientClock() : SystemClockWrapper(rocksdb::SystemClock::Default()) {}
  const char* Name() const override { return "ImpatientClock"; }
  void SleepForMicroseconds(int micros) override {
    target_->SleepForMicroseconds(std::min(micros, 1000));
  }
};

class FaultyDisk : public rocksdb::EnvWrapper {
 public:
  using Fault = FaultyFiles::Fault;
  static constexpr int kFaults = FaultyFiles::kFaults;

  FaultyDisk() : EnvWrapper(rocksdb::Env::Default()), files_(std::make_shared<FaultyFiles>()) {
    file_system_ = files_;
    system_clock_ = std::make_shared<ImpatientClock>();
  }
  const char* Name() const override { return "FaultyDisk"; }
  rocksdb::Env* env() { return this; }
  void Plan(Fault fault, int64_t at, int64_t length = 1) { files_->Plan(fault, at, length); }
  bool fired() const { return files_->fired(); }
  int64_t operations() const { return files_->operations(); }
  void CutPower(RandomStream& random) { files_->CutPower(random); }
  void EndProcess() { files_->EndProcess(); }

 private:
  const std::shared_ptr<FaultyFiles> files_;
};

}  // namespace plumb::replay
