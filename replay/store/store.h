// The durable memory of a run: prompts, leases and scored groups in one RocksDB folder.
//
// Purpose: what Insert has returned for survives a killed process and a power cut, exists exactly
// once, and is verified by a CRC32C of our own at every read. Settings and reasons:
// docs/reliability.md, "Store". Layout (format version 1; append-only: new column families and new
// value kinds, never a new meaning of old ones):
//
//   column family  key                                  value (each starts with CRC32C over key and
//   rest, 4 bytes LE) meta           text: format, run_id, clean, trim/<p>, dataset/<name>,
//   counter/<name>,
//                                                       preferences/<name>, import/<kind>/<name>
//                                                       (where an unfinished import is),
//                                                       score/<name>
//   prompts        dataset, 0, row (8 bytes big endian) encoded Prompt
//   leases         purpose (1), lease id (8 BE)         LeaseRecord
//   groups         purpose (1), lease id (8 BE)         kind (1), then: 2 a GroupBody as its actor
//   sealed it (common/record/group_body.h);
//                                                       0, 1 [drop reason, samples,] body and
//                                                       scores in one, of before December 2026
//   eval           version (8 BE), samples (4 BE)       EvalRecord
//   preferences    dataset, 0, row (8 BE)               encoded PreferenceRecord
//   logprobs       model digest, 0, sequence digest     float32 LE each: log-probs of a sequence's
//   scored tokens scores         purpose (1), lease id (8 BE), name   GroupScore: what reward
//   functions said of a group; name "": when it was stored plans          step (8 BE) StepPlan:
//   which rows and earlier groups a train step was given
//
// Thread safety: all methods may be called concurrently; concurrent Insert calls share one sync of
// the log. Ownership: holds the RocksDB lock of the folder for its lifetime. Errors: kConflict
// (open elsewhere, other run), kUnsupported (other format version), kCorruption (names the key),
// kNoSpace (nothing stored; the store stays usable and writes again once there is room), kIo (after
// a failed sync the store refuses everything until it is opened again: what the disk holds is then
// unknown).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/record/group_body.h"
#include "common/record/ports.h"
#include "common/record/preference.h"
#include "common/record/trajectory.h"

namespace rocksdb {
class Env;
}

namespace plumb::replay {

inline constexpr int64_t kStoreFormatVersion = 1;
inline constexpr char kTrainDataset[] = "train";
inline constexpr char kEvalDataset[] = "eval";
inline constexpr uint64_t kNoRowsHash = 0xCBF29CE484222325u;  // of a dataset without rows

struct StoreOptions {
  // of a new store, and checked against an old one; empty: whatever is stored
  std::string run_id;
  // no lock taken, sees what was flushed or logged when it was opened; also while a run holds it
  bool read_only = false;
  bool create = true;          // false: a folder without a store is kNotFound
  bool verify_on_open = true;  // read back every group inserted since the last clean close
  int64_t write_buffer_mb = 16;
  rocksdb::Env* env_for_test = nullptr;  // see replay/store/rocks.h
  bool never_sync_for_test = false;
};

// What is remembered of a lease. Written unsynced when it is handed out (a lost attempt number
// harms nothing: the id is the key), synced with the group when complete.
struct LeaseRecord {
  bool complete = false;
  uint32_t attempt = 0;   // highest handed out
  uint32_t requeues = 0;  // times its group came back unscored under on_failure = requeue
  uint64_t sequence = 0;  // when complete: number of this insert since the store was made, from 1
};

struct LeaseMark {
  Purpose purpose = Purpose::kTrain;
  uint64_t lease_id = 0;
  LeaseRecord record;
};

// Names a row of a dataset and what it says: `sum` is the checksum that the row is stored with.
struct PromptRef {
  std::string dataset;
  uint64_t row = 0;
  uint32_t sum = 0;
  bool operator==(const PromptRef&) const = default;
};
inline PromptRef RefOf(const PromptLease& lease) {
  return {lease.prompt.dataset, lease.prompt.row, lease.prompt_sum};
}

// What became of an answered lease.
enum class GroupKind : uint8_t {
  kGroup = 0,
  kDropped = 1,  // the lease is answered, nothing to train on: no answer has a score
};

struct StoredGroup {
  GroupKind kind = GroupKind::kGroup;
  std::string drop_reason;  // kDropped only
  TrajectoryGroup group;    // kDropped by an older Plumb: lease, run_id and actor, no trajectories
};

// What was said of one answer.
struct ScoredAnswer {
  double reward = 0;
  std::vector<RewardPart> parts;
  bool scored = true;
  bool aborted = false;         // never generated
  std::string unscored_reason;  // why not, when !scored
  bool operator==(const ScoredAnswer&) const = default;
};
// What reward functions said of a group: one record when it is stored and whenever it is scored
// again. Answers in the order of the group's trajectories.
struct GroupScore {
  std::vector<ScoredAnswer> answers;
  std::optional<std::string> dropped;  // why none of the group trains; absent: it does
  bool operator==(const GroupScore&) const = default;
};

// A group on its way into the store.
struct ScoredBody {
  GroupBody body;
  GroupScore scores;
};

// What a train step was given, where that is not fixed: written before anybody acts on it, so that
// a restart gives the same.
struct StepPlan {
  // row of each of the step's leases; empty: the order that follows from the seed
  std::vector<uint64_t> prompt_rows;
  bool drawn = false;              // `replayed` is decided
  std::vector<uint64_t> replayed;  // lease ids of earlier steps, ascending
  uint64_t total_replayed = 0;     // of all steps up to and with this one
  // Schedule async: leases of the step's own groups, in their order. Empty: not chosen yet, or the
  // leases that bear its number.
  std::vector<uint64_t> chosen;
  bool operator==(const StepPlan&) const = default;
};

struct VerifyReport {
  // records read
  uint64_t groups = 0, prompts = 0, leases = 0, preferences = 0, logprobs = 0, scores = 0;
  // one sentence each; empty: every byte is what was written
  std::vector<std::string> problems;
};

class Store {
 public:
  // Opens or creates. `path` is a folder of its own.
  static std::unique_ptr<Store> Open(const std::string& path, const StoreOptions& options = {});
  // Writes the clean mark, then closes.
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  const std::string& run_id() const;
  const std::string& path() const;

  // Prompts. Row numbers are 0..n-1 in the given order (Prompt::dataset and ::row are set by the
  // store). Storing the same rows again is a no-op, other rows under a name that is taken are
  // kConflict: a run's data never changes.
  void PutPrompts(const std::string& dataset, std::span<const Prompt> prompts);
  uint64_t PromptCount(const std::string& dataset) const;  // 0: no such dataset
  std::map<std::string, uint64_t> Datasets() const;        // name -> rows
  // `sum`, where given, becomes the row's checksum.
  Prompt ReadPrompt(const std::string& dataset, uint64_t row, uint32_t* sum = nullptr) const;
  // The row that `ref` names; kConflict where the store has another one under this number. The
  // second: as it is stored.
  Prompt FindPrompt(const PromptRef& ref) const;
  std::string PromptValue(const PromptRef& ref) const;

  // Preference datasets, with the same promises as prompts: row numbers 0..n-1 in the given order,
  // the same rows again are a no-op, other rows under a name that is taken are kConflict. In
  // pieces, for files that do not fit into memory: Append writes rows first_row.. without syncing
  // and carries `hash` from piece to piece (start with kNoRowsHash); rows count only once Seal has
  // returned. A killed import is begun again: appending overwrites. kConflict when the dataset is
  // sealed with other rows (then Append has written nothing: it refuses a sealed dataset unless the
  // row is there with equal bytes).
  void AppendPreferences(const std::string& dataset, uint64_t first_row,
                         std::span<const PreferenceRecord> records, uint64_t& hash);
  void SealPreferences(const std::string& dataset, uint64_t rows, uint64_t hash);
  uint64_t PreferenceCount(const std::string& dataset) const;  // 0: no such dataset
  std::map<std::string, uint64_t> PreferenceDatasets() const;  // name -> rows
  // What the rows are, in one line that changes with any of them; empty: no such dataset.
  std::string PreferenceIdentity(const std::string& dataset) const;
  // Rows [first, first + n), fewer at the end of the dataset.
  std::vector<PreferenceRecord> ReadPreferences(const std::string& dataset, uint64_t first,
                                                uint64_t n) const;

  // Log-probs of known sequences under known weights (replay/store/logprob_cache.h is the port).
  // Put syncs only on demand: a lost entry is computed again.
  std::optional<std::vector<float>> GetLogprobs(const Digest& model, const Digest& sequence) const;
  void PutLogprobs(const Digest& model, const Digest& sequence, std::span<const float> logprobs,
                   bool sync = false);

  // Scores beside those that were stored with a group, for groups that are there (else kNotFound).
  // A name stands for the reward functions (a digest of what they are and how they are weighted);
  // `about` says so in words and is kept with it. A score that is there is never replaced: PutScore
  // then returns false. Not synced; SyncScores makes what was put durable. What Trim forgets loses
  // its scores as well.
  void DescribeScore(const std::string& name, const std::string& about);
  std::map<std::string, std::string> ScoreNames() const;  // name -> about
  // The one name that begins with `prefix`; throws kInvalidArgument listing the names when none or
  // several do.
  std::string FindScore(const std::string& prefix) const;
  bool PutScore(Purpose purpose, uint64_t lease_id, const std::string& name,
                const GroupScore& score);
  std::optional<GroupScore> ReadScore(Purpose purpose, uint64_t lease_id,
                                      const std::string& name) const;
  void SyncScores();

  // Plans of train steps; synced. Put replaces.
  void PutPlan(int64_t step, const StepPlan& plan);
  std::optional<StepPlan> ReadPlan(int64_t step) const;
  std::map<int64_t, StepPlan> Plans() const;  // all that are kept
  void TrimPlans(int64_t before_step);

  // Leases.
  void RecordLeases(std::span<const LeaseMark> marks);
  // Every lease that is remembered and not trimmed, in order of id.
  std::vector<LeaseMark> Leases(Purpose purpose) const;
  std::optional<LeaseRecord> ReadLease(Purpose purpose, uint64_t lease_id) const;

  // Groups: body, scores and completed lease in one synced batch; returns once durable. kDuplicate
  // when the key is there. kCorruption for scores that are not of their body. Several with one
  // sync; results in order.
  std::vector<InsertResult> Insert(std::span<const ScoredBody* const> groups);
  // The same of groups that are no bytes yet.
  std::vector<InsertResult> Insert(std::span<const TrajectoryGroup> groups);
  InsertResult Insert(const TrajectoryGroup& group);
  // Forgets the answers to these leases, with their scores, so that they can be answered afresh;
  // synced, and Sequence() stays. Returns those that had an answer, each with its highest attempt.
  std::vector<LeaseMark> Reopen(Purpose purpose, std::span<const uint64_t> ids);
  bool Contains(Purpose purpose, uint64_t lease_id) const;  // also true for what was trimmed
  // `texts`: with all of its prompt, which the group names only (kConflict, kNotFound: FindPrompt).
  std::optional<StoredGroup> Read(Purpose purpose, uint64_t lease_id, bool texts = true) const;
  // What a store judges it by.
  std::optional<GroupHead> ReadHead(Purpose purpose, uint64_t lease_id) const;
  // The whole as it is stored, where it lies: use(key, value, scores) with the sums checked, for
  // replay/store/record.h's BatchWriter or OpenStoredGroup; `scores` is empty where the value holds
  // them. The bytes are valid during the call, which must not call into the store. False: not
  // there.
  using UseSealed =
      std::function<void(std::string_view key, std::string_view value, std::string_view scores)>;
  bool ReadSealed(Purpose purpose, uint64_t lease_id, const UseSealed& use) const;
  // Ids present in [begin, end), ascending. O(number of ids).
  std::vector<uint64_t> Ids(Purpose purpose, uint64_t begin = 0, uint64_t end = UINT64_MAX) const;

  // Evaluations asked for: (version, samples) -> number of held-out prompts.
  void PutEvaluation(int64_t version, int32_t samples, uint64_t prompts);
  struct Evaluation {
    int64_t version = 0;
    int32_t samples = 0;
    uint64_t prompts = 0;
  };
  std::vector<Evaluation> Evaluations() const;
  // Forgets evaluations of versions < `before`, with their groups, leases and scores. As with Trim,
  // they stay complete.
  void TrimEvaluations(int64_t before);

  // Forgets groups and leases of ids < `before`; they stay complete. The caller passes only what
  // lies below the oldest verified checkpoint manifest that is kept.
  void Trim(Purpose purpose, uint64_t before);
  uint64_t TrimmedBefore(Purpose purpose) const;

  // Adds to a named counter; kept over restarts from the next synced write on ("refused/stale",
  // "dropped/unscored").
  void Count(const std::string& name, int64_t n = 1);
  // inserts, duplicates, bytes, corrupt_reads, no_space, and every name given to Count.
  std::map<std::string, int64_t> Counters() const;

  // Number of the newest durable insert since the store was made; increases by one with each group.
  // What this returned once is never less after a restart, or acknowledged groups are missing.
  uint64_t Sequence() const;
  // Reads everything. O(size of the store).
  VerifyReport Verify() const;
  // A copy of the store as it is now in `folder` (not there yet), which opens as a store of its
  // own. Table files are hard-linked where the file system allows: quick, and next to no space.
  // Throws kInvalidArgument when it is there.
  void Snapshot(const std::string& folder) const;
  struct FamilyUsage {
    std::string name;
    uint64_t records = 0;       // an estimate: overwritten and trimmed ones may still be counted
    uint64_t table_bytes = 0;   // in table files
    uint64_t memory_bytes = 0;  // not yet written to one; the log has them
  };
  std::vector<FamilyUsage> Usage() const;
  // Bytes of the folder's live files.
  uint64_t SizeBytes() const;
  // Moves what is in memory to table files (tests; before a copy of the folder).
  void Flush();

 private:
  struct Impl;
  friend class ImportWriter;  // writes datasets in pieces: replay/datasets/import_writer.h
  void NoteDataset(const std::string& dataset, uint64_t rows);  // its prompts are sealed
  std::optional<std::string> GetRaw(int family, std::string_view key) const;  // payload, checked
  bool SameRows(int family, const std::string& dataset, const std::string& stored,
                const std::string& now) const;
  class RocksFolder& rocks() const;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb::replay
