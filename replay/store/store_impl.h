// What a Store holds behind its interface: RocksDB's folder, and what is known of it in memory.
// Private to store.cc.
//
// Thread safety: mu guards what is listed under it, counters_mu the counters; order: trim_mu, mu,
// counters_mu.
// Ownership: by the Store. Errors: those of replay/store/store.h.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "replay/store/record.h"
#include "replay/store/rocks.h"
#include "replay/store/store.h"

namespace plumb::replay {

// Of the row of meta that says that a dataset of prompts is whole: behind it the name.
inline constexpr std::string_view kPromptBatchDone = "dataset/";

inline constexpr int kPurposes = 2;
inline constexpr int kTornReads = 3;
inline int Index(Purpose purpose) { return static_cast<int>(purpose); }
inline std::string_view View(const rocksdb::Slice& s) { return {s.data(), s.size()}; }
inline rocksdb::Slice ToSlice(std::string_view s) { return {s.data(), s.size()}; }

struct Store::Impl {
  std::string path;
  std::string run_id;
  StoreOptions options;
  RocksFolder rocks;

  Mutex trim_mu;  // one Trim at a time
  mutable Mutex mu PLUMB_ACQUIRED_AFTER(trim_mu);
  CondVar landed;
  std::set<uint64_t> complete[kPurposes] PLUMB_GUARDED_BY(mu);  // ids with a group, >= trimmed
  uint64_t trimmed[kPurposes] PLUMB_GUARDED_BY(mu) = {0, 0};
  std::set<std::pair<int, uint64_t>> in_flight PLUMB_GUARDED_BY(mu);  // keys being written now
  uint64_t sequence PLUMB_GUARDED_BY(mu) = 0;  // given to the newest insert, durable or not
  uint64_t durable PLUMB_GUARDED_BY(mu) = 0;   // highest of those that are
  std::map<std::string, uint64_t> datasets PLUMB_GUARDED_BY(mu);  // name -> rows
  mutable Mutex counters_mu PLUMB_ACQUIRED_AFTER(mu);
  mutable std::map<std::string, int64_t> counters PLUMB_GUARDED_BY(counters_mu);
  mutable std::set<std::string> dirty PLUMB_GUARDED_BY(counters_mu);

  void Count(const std::string& name, int64_t n) const {
    MutexLock lock(counters_mu);
    counters[name] += n;
    dirty.insert(name);
  }

  bool InFlight(Purpose purpose, uint64_t begin, uint64_t end) const PLUMB_REQUIRES(mu) {
    const auto first = in_flight.lower_bound({Index(purpose), begin});
    return first != in_flight.end() && *first < std::pair(Index(purpose), end);
  }
  bool Has(Purpose purpose, uint64_t id) const PLUMB_REQUIRES(mu) {
    return id < trimmed[Index(purpose)] || complete[Index(purpose)].contains(id);
  }

  void PutMeta(rocksdb::WriteBatch& batch, const std::string& key, const std::string& text) const {
    batch.Put(rocks.meta(), key, Seal(key, text));
  }

  // use(value) on the value that is stored under the key; false when nothing does. Counts what
  // turns out to be corrupt.
  template <class Use>
  bool Visit(Family family, std::string_view key, Use use) const {
    if (rocks.handle(family) == nullptr) return false;
    RocksFolder::Pinned pinned;
    const rocksdb::Status status = rocks.Get(family, key, &pinned);
    if (status.IsNotFound()) return false;
    try {
      if (!status.ok()) ThrowStatus(status, path, "read " + ReadableKey(FamilyName(family), key));
      use(View(pinned.value));
    } catch (const Error& e) {
      if (e.code() == ErrorCode::kCorruption) Count("corrupt_reads", 1);
      throw;
    }
    return true;
  }
  // A value's payload, its CRC checked; nullopt when the key is not there.
  std::optional<std::string> Get(Family family, std::string_view key) const {
    std::optional<std::string> payload;
    Visit(family, key,
          [&](std::string_view value) { payload = Unseal(FamilyName(family), key, value); });
    return payload;
  }

  // use(key, value, scores) on a group where it lies; see Store::ReadSealed, but no sum is checked.
  template <class Use>
  bool VisitGroup(Purpose purpose, uint64_t lease_id, Use use) const {
    const std::string key = LeaseKey(purpose, lease_id);
    for (int tries = 0;; ++tries) {
      std::string scores;
      Visit(Family::kScores, key, [&](std::string_view value) { scores = value; });
      bool torn = false;  // the lease was answered afresh between the two reads
      const bool found = Visit(Family::kGroups, key, [&](std::string_view value) {
        const bool body = GroupBody::IsBody(value);
        torn = body && !ScoresAreOf(scores, value);
        if (torn && tries == kTornReads) {
          // Damage to either is told by its sum.
          Unseal("groups", key, value);
          if (!scores.empty()) Unseal("scores", key, scores);
          throw Error(
              ErrorCode::kCorruption,
              scores.empty() ? "its scores are not there" : "its scores are of another answer",
              ReadableKey("groups", key));
        }
        if (!torn)
          use(std::string_view(key), value, body ? std::string_view(scores) : std::string_view());
      });
      if (!torn) return found;
    }
  }

  // Calls visit(key, value) for each record from `begin` on until it returns false. It must not
  // call into the store.
  template <class Visit>
  void Scan(Family family, std::string_view begin, Visit visit) const {
    if (rocks.handle(family) == nullptr) return;
    rocksdb::Status status;
    {
      const auto it = rocks.Iterate(family);
      for (it->Seek(ToSlice(begin)); it->Valid(); it->Next()) {
        if (!visit(View(it->key()), View(it->value()))) break;
      }
      status = it->status();
    }
    if (!status.ok()) {
      Count("corrupt_reads", 1);
      ThrowStatus(status, path, "scan column family '" + std::string(FamilyName(family)) + "'");
    }
  }

  void AddDirtyCounters(rocksdb::WriteBatch& batch) const PLUMB_REQUIRES(counters_mu) {
    for (const std::string& name : dirty)
      PutMeta(batch, "counter/" + name, std::to_string(counters[name]));
    dirty.clear();
  }

  void CheckFormat();
  // Both fill what mu and counters_mu guard before anybody else has the store: without these.
  void LoadMeta() PLUMB_NOT_CHECKED;
  void LoadLeases(std::vector<uint64_t> (&unverified)[kPurposes], uint64_t clean) PLUMB_NOT_CHECKED;
};

}  // namespace plumb::replay
