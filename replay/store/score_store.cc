// The parts of the store that hold later scores, plans of train steps, and the end of evaluations;
// declared in replay/store/store.h.
#include <memory>

#include "common/base/error.h"
#include "replay/store/record.h"
#include "replay/store/rocks.h"
#include "replay/store/store.h"

namespace plumb::replay {
namespace {

constexpr std::string_view kScore = "score/";

void PutMeta(RocksFolder& rocks, const std::string& key, const std::string& text) {
  rocksdb::WriteBatch batch;
  batch.Put(rocks.meta(), key, Seal(key, text));
  rocks.Write(batch, /*sync=*/true);
}

}  // namespace

void Store::DescribeScore(const std::string& name, const std::string& about) {
  if (name.empty()) throw Error(ErrorCode::kInvalidArgument, "a score needs a name");
  const std::string key = std::string(kScore) + name;
  const auto then = GetRaw(static_cast<int>(Family::kMeta), key);
  if (then && *then != about) {
    throw Error(ErrorCode::kConflict,
                "the score " + name + " is there already and stands for something else: " + *then,
                path());
  }
  if (!then) PutMeta(rocks(), key, about);
}

std::map<std::string, std::string> Store::ScoreNames() const {
  std::map<std::string, std::string> out;
  const auto it = rocks().Iterate(Family::kMeta);
  for (it->Seek(rocksdb::Slice(kScore.data(), kScore.size())); it->Valid(); it->Next()) {
    const std::string key = it->key().ToString();
    if (!key.starts_with(kScore)) break;
    const std::string value = it->value().ToString();
    out[key.substr(kScore.size())] = std::string(Unseal("meta", key, value));
  }
  if (!it->status().ok()) ThrowStatus(it->status(), path(), "list the scores");
  return out;
}

std::string Store::FindScore(const std::string& prefix) const {
  std::string found, known;
  int64_t hits = 0;
  for (const auto& [name, about] : ScoreNames()) {
    known += "\n  " + name + "  " + about;
    if (!name.starts_with(prefix)) continue;
    found = name;
    ++hits;
  }
  if (hits == 1) return found;
  throw Error(
      ErrorCode::kInvalidArgument,
      (hits == 0 ? "no score begins with '" : "several scores begin with '") + prefix +
          (known.empty()
               ? "'; the store has none besides the stored rewards: `plumb data rescore` makes one"
               : "'; there are:" + known),
      path());
}

bool Store::PutScore(Purpose purpose, uint64_t lease_id, const std::string& name,
                     const GroupScore& score) {
  PLUMB_CHECK(!name.empty(), "the scores of a group's birth come with Insert");
  if (ReadScore(purpose, lease_id, name)) return false;
  uint32_t body_sum = 0;
  if (!ReadSealed(purpose, lease_id,
                  [&](std::string_view, std::string_view value, std::string_view) {
                    body_sum = SumOf(value);
                  })) {
    throw Error(ErrorCode::kNotFound,
                "a score is of a group, and there is none of lease " + std::to_string(lease_id),
                path());
  }
  const std::string key = ScoreKey(purpose, lease_id, name);
  rocksdb::WriteBatch batch;
  batch.Put(rocks().handle(Family::kScores), key, Seal(key, EncodeGroupScore(score, body_sum)));
  rocks().Write(batch, /*sync=*/false);
  return true;
}

std::optional<GroupScore> Store::ReadScore(Purpose purpose, uint64_t lease_id,
                                           const std::string& name) const {
  const std::string key = ScoreKey(purpose, lease_id, name);
  const auto payload = GetRaw(static_cast<int>(Family::kScores), key);
  if (!payload) return std::nullopt;
  return DecodeGroupScore(key, *payload);
}

// The log is one: syncing any line makes all that was written before it durable.
void Store::SyncScores() { PutMeta(rocks(), "scores_synced", "1"); }

void Store::PutPlan(int64_t step, const StepPlan& plan) {
  const std::string key = PlanKey(step);
  rocksdb::WriteBatch batch;
  batch.Put(rocks().handle(Family::kPlans), key, Seal(key, EncodeStepPlan(plan)));
  rocks().Write(batch, /*sync=*/true);
}

std::optional<StepPlan> Store::ReadPlan(int64_t step) const {
  const std::string key = PlanKey(step);
  const auto payload = GetRaw(static_cast<int>(Family::kPlans), key);
  if (!payload) return std::nullopt;
  return DecodeStepPlan(key, *payload);
}

std::map<int64_t, StepPlan> Store::Plans() const {
  std::map<int64_t, StepPlan> plans;
  const auto it = rocks().Iterate(Family::kPlans);
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const std::string key = it->key().ToString(), value = it->value().ToString();
    plans[ParsePlanKey(key)] = DecodeStepPlan(key, Unseal(FamilyName(Family::kPlans), key, value));
  }
  if (!it->status().ok()) ThrowStatus(it->status(), path(), "list the plans");
  return plans;
}

std::optional<LeaseRecord> Store::ReadLease(Purpose purpose, uint64_t lease_id) const {
  const std::string key = LeaseKey(purpose, lease_id);
  const auto payload = GetRaw(static_cast<int>(Family::kLeases), key);
  if (!payload) return std::nullopt;
  return DecodeLeaseRecord(key, *payload);
}

void Store::TrimPlans(int64_t before_step) {
  if (before_step <= 0) return;
  rocksdb::WriteBatch batch;
  batch.DeleteRange(rocks().handle(Family::kPlans), PlanKey(0), PlanKey(before_step));
  rocks().Write(batch, /*sync=*/false);
}

void Store::TrimEvaluations(int64_t before) {
  if (before <= 0) return;
  // Ids of a version lie in a block of their own, in order of version (replay/table/leases.h).
  Trim(Purpose::kEval, static_cast<uint64_t>(before) << 32);
  rocksdb::WriteBatch batch;
  batch.DeleteRange(rocks().handle(Family::kEval), EvaluationKey(0, 0), EvaluationKey(before, 0));
  rocks().Write(batch, /*sync=*/false);
}

}  // namespace plumb::replay
