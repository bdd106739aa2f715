#include "replay/store/store.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <iterator>
#include <utility>

#include <rocksdb/options.h>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/hash/digest.h"
#include "common/base/mutex.h"
#include "common/base/numbers/number_text.h"
#include "common/record/codec.h"
#include "replay/store/store_impl.h"

namespace plumb::replay {
namespace {

int64_t ParseInt(std::string_view text, const std::string& where) {
  if (const auto value = ParseNumber<int64_t>(text)) return *value;
  throw Error(ErrorCode::kCorruption, "'" + std::string(text) + "' is not a number", where);
}

}  // namespace

// A new store gets its format and run; an old one must be of this format and run.
void Store::Impl::CheckFormat() {
  const auto format = Get(Family::kMeta, "format");
  if (!format) {
    for (const Family family :
         {Family::kMeta, Family::kPrompts, Family::kLeases, Family::kGroups}) {
      Scan(family, "", [&](std::string_view key, std::string_view) -> bool {
        throw Error(ErrorCode::kCorruption,
                    "holds records (" + ReadableKey(FamilyName(family), key) +
                        ") but no format version: it is not a store of Plumb, or its first table "
                        "file was lost",
                    path);
      });
    }
    if (options.read_only)
      throw Error(ErrorCode::kNotFound, "an empty folder of RocksDB, no store of Plumb", path);
    run_id = options.run_id;
    rocksdb::WriteBatch batch;
    PutMeta(batch, "format", std::to_string(kStoreFormatVersion));
    PutMeta(batch, "run_id", run_id);
    rocks.Write(batch, /*sync=*/true);
    return;
  }
  const int64_t version = ParseInt(*format, path);
  if (version != kStoreFormatVersion) {
    throw Error(
        ErrorCode::kUnsupported,
        "the store was written in format " + std::to_string(version) +
            ", this build reads format " + std::to_string(kStoreFormatVersion) +
            ": use the version of Plumb that wrote it, or start a new run in another folder",
        path);
  }
  run_id = Get(Family::kMeta, "run_id").value_or("");
  if (!options.run_id.empty() && run_id != options.run_id) {
    throw Error(ErrorCode::kConflict,
                "the store belongs to run '" + run_id + "', not to '" + options.run_id +
                    "': resume that run, or give this one a folder of its own (run.out)",
                path);
  }
}

void Store::Impl::LoadMeta() {
  Scan(Family::kMeta, "", [&](std::string_view key, std::string_view value) PLUMB_NOT_CHECKED {
    const std::string text(Unseal("meta", key, value));
    if (key.starts_with("counter/")) {
      counters[std::string(key.substr(8))] = ParseInt(text, path);
    } else if (key.starts_with("trim/")) {
      const int64_t purpose = ParseInt(key.substr(5), path);
      if (purpose < 0 || purpose >= kPurposes) {
        throw Error(ErrorCode::kCorruption, "unknown purpose in " + std::string(key), path);
      }
      trimmed[purpose] = static_cast<uint64_t>(ParseInt(text, path));
    } else if (key.starts_with(kPromptBatchDone)) {
      datasets[std::string(key.substr(kPromptBatchDone.size()))] =
          static_cast<uint64_t>(ParseInt(std::string_view(text).substr(0, text.find(' ')), path));
    } else if (key == "sequence") {
      sequence = static_cast<uint64_t>(ParseInt(text, path));
    }
    return true;
  });
}

void Store::Impl::LoadLeases(std::vector<uint64_t> (&unverified)[kPurposes], uint64_t clean) {
  Scan(Family::kLeases, "", [&](std::string_view key, std::string_view value) PLUMB_NOT_CHECKED {
    const auto [purpose, id] = ParseLeaseKey(key);
    const LeaseRecord record = DecodeLeaseRecord(key, Unseal("leases", key, value));
    if (!record.complete || id < trimmed[Index(purpose)]) return true;
    complete[Index(purpose)].insert(id);
    sequence = std::max(sequence, record.sequence);
    if (record.sequence > clean) unverified[Index(purpose)].push_back(id);
    return true;
  });
  durable = sequence;
}

std::unique_ptr<Store> Store::Open(const std::string& path, const StoreOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->options = options;
  impl->rocks.Open(path, {.read_only = options.read_only,
                          .create = options.create,
                          .write_buffer_mb = options.write_buffer_mb,
                          .env_for_test = options.env_for_test,
                          .never_sync_for_test = options.never_sync_for_test});
  impl->CheckFormat();
  impl->LoadMeta();
  const auto mark = impl->Get(Family::kMeta, "clean");
  const uint64_t clean = mark ? static_cast<uint64_t>(ParseInt(*mark, path)) : 0;
  std::vector<uint64_t> unverified[kPurposes];
  impl->LoadLeases(unverified, clean);
  std::unique_ptr<Store> store(new Store(std::move(impl)));
  if (options.verify_on_open && !options.read_only) {
    for (const Purpose purpose : {Purpose::kTrain, Purpose::kEval}) {
      for (const uint64_t id : unverified[Index(purpose)]) {
        if (!store->Read(purpose, id, /*texts=*/false)) {
          throw Error(ErrorCode::kCorruption,
                      "lease " + std::to_string(id) +
                          " is complete but its group is not there: the store is damaged; "
                          "look at it with `plumb store inspect` and resume from a copy",
                      path);
        }
      }
    }
  }
  return store;
}

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Store::~Store() {
  if (!impl_ || !impl_->rocks.writable()) return;
  try {
    rocksdb::WriteBatch batch;
    {
      MutexLock lock(impl_->mu);
      MutexLock counting(impl_->counters_mu);
      impl_->PutMeta(batch, "clean", std::to_string(impl_->sequence));
      impl_->PutMeta(batch, "sequence", std::to_string(impl_->sequence));
      impl_->AddDirtyCounters(batch);
    }
    impl_->rocks.Write(batch, /*sync=*/true);
  } catch (const Error&) {
    // Without the mark the next start reads back more; nothing that was acknowledged depends on it.
  }
}

std::optional<std::string> Store::GetRaw(int family, std::string_view key) const {
  return impl_->Get(static_cast<Family>(family), key);
}
RocksFolder& Store::rocks() const { return impl_->rocks; }

const std::string& Store::run_id() const { return impl_->run_id; }
const std::string& Store::path() const { return impl_->path; }

void Store::RecordLeases(std::span<const LeaseMark> marks) {
  rocksdb::WriteBatch batch;
  for (const LeaseMark& mark : marks) {
    PLUMB_CHECK(!mark.record.complete, "a lease is completed by Insert");
    const std::string key = LeaseKey(mark.purpose, mark.lease_id);
    batch.Put(impl_->rocks.handle(Family::kLeases), key, Seal(key, EncodeLeaseRecord(mark.record)));
  }
  {
    MutexLock lock(impl_->counters_mu);
    impl_->AddDirtyCounters(batch);
  }
  impl_->rocks.Write(batch, /*sync=*/false);
}

std::vector<LeaseMark> Store::Leases(Purpose purpose) const {
  std::vector<LeaseMark> marks;
  impl_->Scan(
      Family::kLeases, LeaseKey(purpose, TrimmedBefore(purpose)),
      [&](std::string_view key, std::string_view value) {
        const auto [found, id] = ParseLeaseKey(key);
        if (found != purpose) return false;
        marks.push_back({purpose, id, DecodeLeaseRecord(key, Unseal("leases", key, value))});
        return true;
      });
  return marks;
}

InsertResult Store::Insert(const TrajectoryGroup& group) {
  return Insert(std::span(&group, 1)).front();
}

std::vector<InsertResult> Store::Insert(std::span<const TrajectoryGroup> groups) {
  std::vector<ScoredBody> sealed;
  std::vector<const ScoredBody*> all;
  sealed.reserve(groups.size());
  for (const TrajectoryGroup& group : groups) {
    sealed.push_back({GroupBody::Seal(group), ScoresOf(group)});
    all.push_back(&sealed.back());
  }
  return Insert(all);
}

std::vector<InsertResult> Store::Insert(std::span<const ScoredBody* const> groups) {
  std::vector<InsertResult> results(groups.size(), InsertResult::kInserted);
  std::vector<std::string> scores(groups.size());  // what their keys are to hold
  constexpr size_t kBesidesBytes =
      256;  // more than keys, lease and heads of a group take in a batch
  size_t batch_bytes = kBesidesBytes;
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto& [body, said] = *groups[i];
    if (body.head().run_id != impl_->run_id) {
      results[i] = InsertResult::kRefused;
      impl_->Count("refused/other_run", 1);
      continue;
    }
    CheckScores(body.head(), said);
    const std::string key = LeaseKey(body.head().lease.purpose, body.head().lease.lease_id);
    scores[i] = Seal(key, EncodeGroupScore(said, body.sum()));
    batch_bytes += body.bytes().size() + scores[i].size() + kBesidesBytes;
  }
  // Reserve: all keys of this call at once and only while none of them is being written, so callers
  // cannot dead-lock.
  std::vector<std::pair<int, uint64_t>> reserved;
  rocksdb::WriteBatch batch(batch_bytes);
  int64_t bytes = 0;
  uint64_t last = 0;  // highest number among these inserts
  {
    MutexLock lock(impl_->mu);
    const auto key_of = [&](size_t i) {
      const PromptLease& lease = groups[i]->body.head().lease;
      return std::pair(Index(lease.purpose), lease.lease_id);
    };
    impl_->landed.wait(lock, [&]() PLUMB_REQUIRES(impl_->mu) {
      for (size_t i = 0; i < groups.size(); ++i) {
        if (impl_->in_flight.contains(key_of(i))) return false;
      }
      return true;
    });
    for (size_t i = 0; i < groups.size(); ++i) {
      if (results[i] == InsertResult::kRefused) continue;
      const PromptLease& lease = groups[i]->body.head().lease;
      if (impl_->Has(lease.purpose, lease.lease_id) || !impl_->in_flight.insert(key_of(i)).second) {
        results[i] = InsertResult::kDuplicate;
        impl_->Count("duplicates", 1);
        continue;
      }
      reserved.push_back(key_of(i));
      const std::string key = LeaseKey(lease.purpose, lease.lease_id);
      const LeaseRecord record{true, lease.attempt, 0, ++impl_->sequence};
      batch.Put(impl_->rocks.handle(Family::kGroups), key, ToSlice(groups[i]->body.bytes()));
      batch.Put(impl_->rocks.handle(Family::kScores), key, scores[i]);
      batch.Put(impl_->rocks.handle(Family::kLeases), key, Seal(key, EncodeLeaseRecord(record)));
      bytes += static_cast<int64_t>(groups[i]->body.bytes().size() + scores[i].size());
    }
    last = impl_->sequence;
  }
  if (reserved.empty()) return results;
  const auto settle = [&](bool written) {
    MutexLock lock(impl_->mu);
    for (const auto& [purpose, id] : reserved) {
      impl_->in_flight.erase({purpose, id});
      if (written) impl_->complete[purpose].insert(id);
    }
    if (written) impl_->durable = std::max(impl_->durable, last);
    impl_->landed.notify_all();
  };
  try {
    CRASH_POINT("store_before_wal");
    impl_->rocks.Write(batch, /*sync=*/true);
    CRASH_POINT("store_after_wal_before_ack");
  } catch (const Error& e) {
    settle(false);
    if (e.code() == ErrorCode::kNoSpace) impl_->Count("no_space", 1);
    throw;
  }
  settle(true);
  impl_->Count("inserts", static_cast<int64_t>(reserved.size()));
  impl_->Count("bytes", bytes);
  return results;
}

bool Store::Contains(Purpose purpose, uint64_t lease_id) const {
  MutexLock lock(impl_->mu);
  return impl_->Has(purpose, lease_id);
}

std::optional<StoredGroup> Store::Read(Purpose purpose, uint64_t lease_id, bool texts) const {
  std::optional<StoredGroup> stored;
  impl_->VisitGroup(purpose, lease_id,
                    [&](std::string_view key, std::string_view value, std::string_view scores) {
                      stored = OpenStoredGroup(key, value, scores);
                    });
  if (!stored || !texts || stored->group.lease.prompt_sum == 0) return stored;
  PromptLease& lease = stored->group.lease;
  Prompt whole = FindPrompt(RefOf(lease));
  whole.tokens = std::move(lease.prompt.tokens);
  lease.prompt = std::move(whole);
  return stored;
}

std::optional<GroupHead> Store::ReadHead(Purpose purpose, uint64_t lease_id) const {
  std::optional<GroupHead> head;
  impl_->VisitGroup(purpose, lease_id,
                    [&](std::string_view key, std::string_view value, std::string_view scores) {
                      Unseal("groups", key, value);
                      head = GroupBody::IsBody(value)
                                 ? GroupBody::Open(Payload(nullptr, value), /*summed=*/true).head()
                                 : HeadOf(OpenStoredGroup(key, value, scores).group);
                    });
  return head;
}

bool Store::ReadSealed(Purpose purpose, uint64_t lease_id, const UseSealed& use) const {
  return impl_->VisitGroup(
      purpose, lease_id,
      [&](std::string_view key, std::string_view value, std::string_view scores) {
        Unseal("groups", key, value);
        if (!scores.empty()) Unseal("scores", key, scores);
        use(key, value, scores);
      });
}

std::vector<uint64_t> Store::Ids(Purpose purpose, uint64_t begin, uint64_t end) const {
  MutexLock lock(impl_->mu);
  const auto& ids = impl_->complete[Index(purpose)];
  return {ids.lower_bound(begin), ids.lower_bound(end)};
}

void Store::PutEvaluation(int64_t version, int32_t samples, uint64_t prompts) {
  const std::string key = EvaluationKey(version, samples);
  rocksdb::WriteBatch batch;
  batch.Put(impl_->rocks.handle(Family::kEval), key,
            Seal(key, EncodeEvaluation({version, samples, prompts})));
  impl_->rocks.Write(batch, /*sync=*/true);
}

std::vector<Store::Evaluation> Store::Evaluations() const {
  std::vector<Evaluation> all;
  impl_->Scan(Family::kEval, "", [&](std::string_view key, std::string_view value) {
    all.push_back(DecodeEvaluation(key, Unseal("eval", key, value)));
    return true;
  });
  return all;
}

void Store::Trim(Purpose purpose, uint64_t before) {
  MutexLock trimming(impl_->trim_mu);
  rocksdb::WriteBatch batch;
  uint64_t& trimmed = impl_->trimmed[Index(purpose)];
  uint64_t was = 0;
  {
    MutexLock lock(impl_->mu);
    was = trimmed;
    if (before <= was) return;
    trimmed = before;  // from here on nothing below is inserted
    impl_->landed.wait(
        lock, [&]() PLUMB_REQUIRES(impl_->mu) { return !impl_->InFlight(purpose, 0, before); });
    impl_->PutMeta(batch, "sequence", std::to_string(impl_->sequence));
  }
  const std::string begin = LeaseKey(purpose, 0), end = LeaseKey(purpose, before);
  batch.DeleteRange(impl_->rocks.handle(Family::kGroups), begin, end);
  batch.DeleteRange(impl_->rocks.handle(Family::kLeases), begin, end);
  // their keys begin with the lease's
  batch.DeleteRange(impl_->rocks.handle(Family::kScores), begin, end);
  impl_->PutMeta(batch, "trim/" + std::to_string(Index(purpose)), std::to_string(before));
  try {
    impl_->rocks.Write(batch, /*sync=*/true);  // without mu: inserts and reads go on meanwhile
  } catch (...) {
    MutexLock lock(impl_->mu);
    trimmed = was;
    throw;
  }
  MutexLock lock(impl_->mu);
  auto& ids = impl_->complete[Index(purpose)];
  const auto keep = ids.lower_bound(before);
  impl_->Count("trimmed", std::distance(ids.begin(), keep));
  ids.erase(ids.begin(), keep);
}

std::vector<LeaseMark> Store::Reopen(Purpose purpose, std::span<const uint64_t> ids) {
  std::vector<LeaseMark> marks;
  rocksdb::WriteBatch batch;
  {
    MutexLock lock(impl_->mu);
    const auto busy = [&](uint64_t id) PLUMB_REQUIRES(impl_->mu) {
      return impl_->in_flight.contains({Index(purpose), id});
    };
    impl_->landed.wait(lock, [&]() PLUMB_REQUIRES(impl_->mu) {
      return std::none_of(ids.begin(), ids.end(), busy);
    });
    for (const uint64_t id : ids) {
      if (!impl_->complete[Index(purpose)].contains(id)) continue;  // trimmed or never answered
      impl_->in_flight.insert({Index(purpose), id});
      marks.push_back({purpose, id, {}});
    }
    // the record that says it may be among these
    impl_->PutMeta(batch, "sequence", std::to_string(impl_->sequence));
  }
  const auto settle = [&](bool written) {
    MutexLock lock(impl_->mu);
    for (const LeaseMark& mark : marks) {
      impl_->in_flight.erase({Index(purpose), mark.lease_id});
      if (written) impl_->complete[Index(purpose)].erase(mark.lease_id);
    }
    impl_->landed.notify_all();
  };
  try {
    for (LeaseMark& mark : marks) {
      const std::string key = LeaseKey(purpose, mark.lease_id);
      if (const auto known = impl_->Get(Family::kLeases, key))
        mark.record.attempt = DecodeLeaseRecord(key, *known).attempt;
      batch.Delete(impl_->rocks.handle(Family::kGroups), key);
      batch.DeleteRange(impl_->rocks.handle(Family::kScores), key,
                        LeaseKey(purpose, mark.lease_id + 1));
      batch.Put(impl_->rocks.handle(Family::kLeases), key,
                Seal(key, EncodeLeaseRecord(mark.record)));
    }
    if (!marks.empty()) impl_->rocks.Write(batch, /*sync=*/true);
  } catch (...) {
    settle(false);
    throw;
  }
  settle(true);
  return marks;
}

uint64_t Store::TrimmedBefore(Purpose purpose) const {
  MutexLock lock(impl_->mu);
  return impl_->trimmed[Index(purpose)];
}

void Store::Count(const std::string& name, int64_t n) { impl_->Count(name, n); }

std::map<std::string, int64_t> Store::Counters() const {
  MutexLock lock(impl_->counters_mu);
  std::map<std::string, int64_t> all = impl_->counters;
  for (const char* name : {"inserts", "duplicates", "bytes", "corrupt_reads", "no_space"})
    all.try_emplace(name, 0);
  return all;
}

uint64_t Store::Sequence() const {
  MutexLock lock(impl_->mu);
  return impl_->durable;
}

VerifyReport Store::Verify() const {
  VerifyReport report;
  const auto check = [&](Family family, uint64_t* count, auto decode) {
    try {
      impl_->Scan(family, "", [&](std::string_view key, std::string_view value) {
        try {
          decode(key, Unseal(FamilyName(family), key, value));
        } catch (const Error& e) {
          report.problems.push_back(e.what());
        }
        if (count != nullptr) ++*count;
        return true;
      });
    } catch (const Error& e) {
      // a block that RocksDB itself refuses ends the scan of its family
      report.problems.push_back(e.what());
    }
  };
  check(Family::kMeta, nullptr, [](std::string_view, std::string_view) {});
  check(Family::kPrompts, &report.prompts,
        [](std::string_view k, std::string_view p) { DecodePromptRow(k, p); });
  check(Family::kEval, nullptr,
        [](std::string_view k, std::string_view p) { DecodeEvaluation(k, p); });
  check(Family::kPreferences, &report.preferences,
        [](std::string_view k, std::string_view p) { DecodePreferenceRow(k, p); });
  check(Family::kLogprobs, &report.logprobs,
        [](std::string_view k, std::string_view p) { DecodeLogprobs(k, p); });
  check(Family::kScores, nullptr, [&](std::string_view k, std::string_view p) {
    DecodeGroupScore(k, p);
    if (k.size() > LeaseKey(Purpose::kTrain, 0).size())
      ++report.scores;  // the others are the groups' own
  });
  check(Family::kPlans, nullptr,
        [](std::string_view k, std::string_view p) { DecodeStepPlan(k, p); });
  std::vector<std::pair<Purpose, uint64_t>> groups;
  check(Family::kGroups, &report.groups,
        [&](std::string_view k, std::string_view) { groups.push_back(ParseLeaseKey(k)); });
  for (const auto& [purpose, id] : groups) {
    try {
      Read(purpose, id);  // with its scores and its prompt
    } catch (const Error& e) {
      report.problems.push_back(e.what());
    }
  }
  std::vector<std::string> complete;
  check(Family::kLeases, &report.leases, [&](std::string_view k, std::string_view p) {
    if (DecodeLeaseRecord(k, p).complete) complete.emplace_back(k);
  });
  for (const std::string& key : complete) {
    try {
      if (!impl_->Get(Family::kGroups, key)) {
        throw Error(ErrorCode::kCorruption, "complete, but its group is not there",
                    ReadableKey("leases", key));
      }
    } catch (const Error& e) {
      report.problems.push_back(e.what());
    }
  }
  return report;
}

uint64_t Store::SizeBytes() const {
  uint64_t bytes = 0;
  std::error_code ignored;  // files may vanish under the iteration
  for (const auto& entry : std::filesystem::directory_iterator(impl_->path, ignored)) {
    const auto size = entry.file_size(ignored);
    if (!ignored) bytes += size;
  }
  return bytes;
}

void Store::Flush() { impl_->rocks.Flush(); }

}  // namespace plumb::replay
