// The real file system with a fault at a chosen operation.
//
// Operations that change something are counted from 1 in the order they are called: opening, each
// Append, each Sync, Rename, SyncDirectory, Remove. Thread safety: all methods (one thread an
// AppendFile).
// CutPower: what was appended and not synced is gone, also what a failed Sync was about (later ones
// do not bring it back).
#pragma once

#include <atomic>
#include <map>
#include <mutex>

#include "common/base/file.h"

namespace plumb::testing {

class FaultyFileSystem final : public FileSystem {
 public:
  enum class Fault {
    kNone,
    kIo,       // fails with kIo and does nothing
    kNoSpace,  // an Append writes half and fails with kNoSpace; others fail with kNoSpace
    // an Append writes half, fails with kIo, and so does everything after it: the disk is gone
    kTorn,
  };

  // The `nth` operation from now fails.
  void FailAt(int64_t nth, Fault fault);
  // REQUIRES: no AppendFile is open.
  void CutPower();
  int64_t operations() const { return operations_; }
  bool fired() const { return fired_; }

  std::string ReadFile(const std::string& path, size_t max_bytes) override;
  std::unique_ptr<AppendFile> OpenAppend(const std::string& path, bool truncate) override;
  void Rename(const std::string& from, const std::string& to) override;
  void SyncDirectory(const std::string& folder) override;
  void Remove(const std::string& path) override;
  void RemoveAll(const std::string& path) override;
  bool Exists(const std::string& path) override;
  uint64_t FileSize(const std::string& path) override;
  std::vector<std::string> List(const std::string& folder) override;
  void CreateDirectories(const std::string& folder) override;

 private:
  friend class FaultyAppendFile;
  // The fault this operation meets; throws for those that do nothing.
  Fault Next();
  void Operate(const std::string& path);
  [[noreturn]] static void Throw(Fault fault, const std::string& path);

  std::atomic<int64_t> operations_{0};
  std::atomic<int64_t> fail_at_{-1};
  std::atomic<Fault> fault_{Fault::kNone};
  std::atomic<bool> fired_{false};

  struct File {
    uint64_t synced = 0;
    bool lost = false;  // a Sync failed
  };
  std::mutex mu_;
  // guarded by mu_; by path: those opened since the last CutPower
  std::map<std::string, File> files_;
};

}  // namespace plumb::testing
