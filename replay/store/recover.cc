#include "replay/store/recover.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>

#include <rocksdb/env.h>
#include <rocksdb/write_batch.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "replay/store/log_check.h"
#include "replay/store/record.h"
#include "replay/store/rocks.h"
#include "replay/store/store.h"

namespace plumb::replay {
namespace {

namespace fs = std::filesystem;
using rocksdb::Status;

// Nobody else opens the store meanwhile.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder) {
    const Status status = rocksdb::Env::Default()->LockFile(folder + "/LOCK", &lock_);
    if (!status.ok() && !IsOpenElsewhere(status)) {
      ThrowStatus(
          status, folder,
          "lock it, which writes a file there (copy the folder to where it can be written)");
    }
    if (!status.ok()) {
      throw Error(ErrorCode::kConflict,
                  "the store is open elsewhere, by a run that goes on or by another command: stop "
                  "it first",
                  folder);
    }
  }
  ~FolderLock() { rocksdb::Env::Default()->UnlockFile(lock_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  rocksdb::FileLock* lock_ = nullptr;
};

// Removed again unless it was kept.
class Draft {
 public:
  explicit Draft(std::string path) : path_(std::move(path)) {
    RealFileSystem().RemoveAll(path_);
    RealFileSystem().CreateDirectories(path_);
  }
  ~Draft() {
    std::error_code ignored;
    if (!kept_) fs::remove_all(path_, ignored);
  }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;
  const std::string& path() const { return path_; }
  void Keep(const std::string& as) {
    RealFileSystem().Rename(path_, as);
    kept_ = true;
    const std::string parent = fs::path(as).parent_path().string();
    RealFileSystem().SyncDirectory(parent.empty() ? "." : parent);
  }

 private:
  const std::string path_;
  bool kept_ = false;
};

// Names of the store's logs, oldest first: their names are numbers of equal or growing length.
std::vector<std::string> LogsOf(const std::string& folder) {
  std::vector<std::string> logs;
  for (const std::string& name : RealFileSystem().List(folder)) {
    if (name.ends_with(".log")) logs.push_back(name);
  }
  std::sort(logs.begin(), logs.end(), [](const std::string& a, const std::string& b) {
    return std::pair(a.size(), a) < std::pair(b.size(), b);
  });
  return logs;
}

void CopyFile(const fs::path& from, const fs::path& to) {
  std::error_code failed;
  // Table files never change.
  if (from.extension() == ".sst") {
    fs::create_hard_link(from, to, failed);
    if (!failed) return;
  }
  fs::copy_file(from, to, failed);
  if (failed)
    throw Error(failed == std::errc::no_space_on_device ? ErrorCode::kNoSpace : ErrorCode::kIo,
                "could not be copied to " + to.string() + ": " + failed.message(), from.string());
}

// What the records behind the damage say, write by write.
class Behind : public rocksdb::WriteBatch::Handler {
 public:
  explicit Behind(std::map<uint32_t, std::string> names) : names_(std::move(names)) {}

  Status PutCF(uint32_t family, const rocksdb::Slice& key, const rocksdb::Slice& value) override {
    const std::string name = NameOf(family);
    if (name != FamilyName(Family::kLeases)) {
      // the rest of a group, or what follows from it
      if (name != FamilyName(Family::kGroups) && name != FamilyName(Family::kScores) &&
          name != FamilyName(Family::kMeta))
        ++rows[name];
      return Status::OK();
    }
    const std::string_view at(key.data(), key.size());
    const LeaseRecord record =
        DecodeLeaseRecord(at, Unseal(name, at, {value.data(), value.size()}));
    if (!record.complete) return Status::OK();
    answered[ParseLeaseKey(at)] = record.sequence;
    sequences.insert(record.sequence);
    return Status::OK();
  }
  Status DeleteCF(uint32_t family, const rocksdb::Slice& key) override {
    if (NameOf(family) == FamilyName(Family::kLeases))
      answered.erase(ParseLeaseKey({key.data(), key.size()}));
    return Status::OK();
  }
  Status DeleteRangeCF(uint32_t family, const rocksdb::Slice& begin,
                       const rocksdb::Slice& end) override {
    if (NameOf(family) != FamilyName(Family::kLeases)) return Status::OK();
    answered.erase(answered.lower_bound(ParseLeaseKey({begin.data(), begin.size()})),
                   answered.lower_bound(ParseLeaseKey({end.data(), end.size()})));
    return Status::OK();
  }
  void LogData(const rocksdb::Slice&) override {}

  std::map<std::pair<Purpose, uint64_t>, uint64_t> answered;  // lease -> number of its insert
  std::set<uint64_t> sequences;
  std::map<std::string, uint64_t> rows;  // by column family

 private:
  std::string NameOf(uint32_t family) const {
    const auto found = names_.find(family);
    return found == names_.end() ? "column family " + std::to_string(family) : found->second;
  }
  const std::map<uint32_t, std::string> names_;
};

// The copy's column families by the numbers that batches name them by.
std::map<uint32_t, std::string> NamesByNumber(const std::string& copy) {
  RocksFolder folder;
  folder.Open(copy, {.read_only = true});
  std::map<uint32_t, std::string> names;
  for (int i = 0; i < kFamilies; ++i) {
    const auto family = static_cast<Family>(i);
    if (folder.handle(family) != nullptr)
      names[folder.handle(family)->GetID()] = std::string(FamilyName(family));
  }
  return names;
}

}  // namespace

Recovery Recover(const std::string& store, const std::optional<std::string>& to) {
  if (!RealFileSystem().Exists(store + "/CURRENT"))
    throw Error(ErrorCode::kNotFound, "there is no store here: it has no CURRENT file", store);
  if (to && RealFileSystem().Exists(*to)) {
    throw Error(ErrorCode::kInvalidArgument, "is there already: the copy goes into a new folder",
                *to);
  }
  const FolderLock lock(store);
  Recovery out;
  const std::vector<std::string> logs = LogsOf(store);
  size_t first = 0;
  for (; first < logs.size(); ++first) {
    const auto damage = FindLogDamage(store + "/" + logs[first]);
    if (!damage) continue;
    out.damaged = store + "/" + logs[first];
    out.byte = damage->byte;
    out.what = damage->what;
    break;
  }
  if (out.damaged.empty()) {
    // Something else may be damaged, which no point in time helps: said as Verify says it.
    const auto whole = Store::Open(store, {.read_only = true});
    const VerifyReport report = whole->Verify();
    if (!report.problems.empty()) {
      const size_t more = report.problems.size() - 1;
      throw Error(ErrorCode::kCorruption,
                  report.problems.front() +
                      (more == 0 ? "" : " (and " + std::to_string(more) + " more)") +
                      "; no log is damaged, so that there is no point in time to go back to: bring "
                      "the folder back from a copy (`plumb store snapshot` makes them)",
                  store);
    }
    out.kept_inserts = out.known_inserts = whole->Sequence();
    return out;
  }

  Draft draft(to ? *to + ".part" : store + ".recovering");
  for (const std::string& name : RealFileSystem().List(store)) {
    const auto log = std::find(logs.begin(), logs.end(), name) - logs.begin();
    if (name == "LOCK" || !fs::is_regular_file(store + "/" + name)) continue;
    if (static_cast<size_t>(log) > first && static_cast<size_t>(log) < logs.size()) {
      out.left_out.push_back(store + "/" + name);
      continue;
    }
    CopyFile(store + "/" + name, draft.path() + "/" + name);
  }
  fs::resize_file(draft.path() + "/" + logs[first], out.byte);
  {
    RocksFolder copy;
    copy.Open(draft.path(), {.create = false, .cut_log = true});
    copy.Flush();  // from here on it needs none of what was cut
  }
  Behind behind(NamesByNumber(draft.path()));
  for (size_t i = first; i < logs.size(); ++i) {
    ReadLog(store + "/" + logs[i], i == first ? out.byte : 0, [&](std::string_view record) {
      const rocksdb::WriteBatch batch{std::string(record)};
      if (const Status status = batch.Iterate(&behind); !status.ok())
        ThrowStatus(status, store + "/" + logs[i], "read a record behind the damage");
    });
  }

  const auto copy = Store::Open(draft.path(), {.read_only = true});
  out.kept_inserts = copy->Sequence();
  uint64_t newest = out.kept_inserts, named = 0;
  for (const uint64_t sequence : behind.sequences) {
    newest = std::max(newest, sequence);
    named += sequence > out.kept_inserts ? 1 : 0;
  }
  out.nameless = newest - out.kept_inserts - named;
  out.known_inserts = newest;
  for (const auto& [lease, sequence] : behind.answered) {
    if (!copy->Contains(lease.first, lease.second)) out.missing.push_back(lease);
  }
  for (const Purpose purpose : {Purpose::kTrain, Purpose::kEval})
    out.kept_groups += copy->Ids(purpose, 0, UINT64_MAX).size();
  out.other_rows = behind.rows;
  out.problems = copy->Verify().problems;
  if (to) draft.Keep(*to);
  return out;
}

}  // namespace plumb::replay
