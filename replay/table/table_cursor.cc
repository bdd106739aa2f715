#include <cstdio>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "replay/table/table.h"

namespace plumb::replay {
namespace {

constexpr size_t kVersionsKept = 4096;  // of which a group may still come

}  // namespace

ReplayTable::Cursor ReplayTable::CursorAt(int64_t consumed_steps) {
  return {consumed_steps, store_->Sequence()};
}

std::string ReplayTable::CursorText(const Cursor& cursor) {
  return std::to_string(cursor.next_step) + " " + std::to_string(cursor.sequence);
}

ReplayTable::Cursor ReplayTable::ParseCursor(const std::string& text) {
  Cursor cursor;
  unsigned long long sequence = 0;
  long long step = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%lld %llu%c", &step, &sequence, &rest) != 2) {
    throw Error(ErrorCode::kCorruption,
                "the checkpoint's cursor into the store is malformed: '" + text + "'");
  }
  cursor.next_step = step;
  cursor.sequence = sequence;
  return cursor;
}

void ReplayTable::CheckAcknowledged(uint64_t sequence) const {
  const uint64_t have = store_->Sequence();
  if (have >= sequence) return;
  throw Error(ErrorCode::kCorruption,
              "the store holds " + std::to_string(have) + " inserts and has acknowledged " +
                  std::to_string(sequence) +
                  ": groups are missing since it was opened again (a damaged log tail, or an older "
                  "copy of the folder); stop "
                  "the run, bring the right store back or start from an older checkpoint",
              store_->path());
}

void ReplayTable::CheckCursor(const Cursor& cursor) const {
  const uint64_t have = store_->Sequence();
  if (have < cursor.sequence) {
    throw Error(ErrorCode::kCorruption,
                "the store has made " + std::to_string(have) +
                    " inserts, the checkpoint was written after " +
                    std::to_string(cursor.sequence) +
                    ": acknowledged groups are missing (a damaged log tail, or an older copy "
                    "of the folder); bring the right store back or start from an older checkpoint",
                store_->path());
  }
  if (cursor.next_step < 0 || cursor.next_step > options_.steps) {
    throw Error(ErrorCode::kInvalidArgument,
                "the checkpoint wants to go on with step " + std::to_string(cursor.next_step) +
                    " of a run of " + std::to_string(options_.steps) + " steps (run.steps)");
  }
  MutexLock lock(mu_);
  for (int64_t step = StepOf(store_->TrimmedBefore(Purpose::kTrain)); step < cursor.next_step;
       ++step) {
    for (const uint64_t id : OwnGroups(step)) {
      if (train_.IsDone(id)) continue;
      throw Error(ErrorCode::kCorruption,
                  "the checkpoint has consumed the steps before " +
                      std::to_string(cursor.next_step) + ", but the group of lease " +
                      std::to_string(id) + " is not in the store",
                  store_->path());
    }
  }
}

int64_t ReplayTable::Resume(const Cursor& cursor) {
  CheckCursor(cursor);
  MutexLock lock(mu_);
  announced_.clear();
  compared_.clear();
  opened_evaluations_.clear();
  asked_step_ = -1;
  if (!options_.sync) TakeByNumber(cursor.next_step);
  std::vector<uint64_t> dropped;
  const auto note = [&](const std::vector<uint64_t>& answered) {
    const bool all = std::all_of(answered.begin(), answered.end(), [&](uint64_t id) {
      const auto stored = store_->Read(Purpose::kTrain, id, /*texts=*/false);
      return stored && stored->kind == GroupKind::kDropped;
    });
    if (all) dropped.insert(dropped.end(), answered.begin(), answered.end());
  };
  const int64_t end = options_.sync ? options_.steps : undecided_step_;
  for (int64_t step = cursor.next_step; step < end; ++step) note(AnsweredOf(step));
  note(ready_.First(ready_.size()));
  std::sort(dropped.begin(), dropped.end());
  Reopen(Purpose::kTrain, dropped, "unscored");
  changed_.notify_all();
  return static_cast<int64_t>(dropped.size());
}

void ReplayTable::Announce(const PolicyVersion& policy) {
  MutexLock lock(mu_);
  const auto known = announced_.find(policy.version);
  if (known != announced_.end() && known->second == policy.digest &&
      std::next(known) == announced_.end())
    return;
  // A number that was out: the learner went back. What it says from here on is the truth.
  if (!announced_.empty() && policy.version <= announced_.rbegin()->first) {
    announced_.erase(announced_.lower_bound(policy.version), announced_.end());
    compared_.clear();
    opened_evaluations_.clear();
    asked_step_ = -1;
  }
  announced_[policy.version] = policy.digest;
  if (announced_.size() > kVersionsKept) announced_.erase(announced_.begin());
}

bool ReplayTable::OtherWeights(const PolicyVersion& policy) const {
  if (announced_.empty()) return false;
  if (policy.version > announced_.rbegin()->first) return true;
  const auto known = announced_.find(policy.version);
  // Without a digest nothing can be said.
  return known != announced_.end() && known->second != policy.digest && !known->second.empty() &&
         !policy.digest.empty();
}

std::vector<uint64_t> ReplayTable::Answered(Purpose purpose, uint64_t begin, uint64_t end) const {
  return store_->Ids(purpose, std::max(begin, store_->TrimmedBefore(purpose)), end);
}

std::vector<uint64_t> ReplayTable::OwnGroups(int64_t step) const {
  if (!options_.sync) return planner_->OwnGroups(step);
  std::vector<uint64_t> ids(static_cast<size_t>(batches_.Of(step)));
  std::iota(ids.begin(), ids.end(), FirstOf(step));
  return ids;
}

std::vector<uint64_t> ReplayTable::AnsweredOf(int64_t step) const {
  if (options_.sync) {
    const std::vector<uint64_t> ids = OwnGroups(step);
    return Answered(Purpose::kTrain, ids.front(), ids.back() + 1);
  }
  return step < undecided_step_ ? planner_->OwnGroups(step) : std::vector<uint64_t>();
}

void ReplayTable::Reopen(Purpose purpose, const std::vector<uint64_t>& ids, const char* reason) {
  if (ids.empty()) return;
  for (const LeaseMark& mark : store_->Reopen(purpose, ids))
    Book(purpose).Reopen(mark.lease_id, mark.record.attempt);
  store_->Count(std::string("reopened/") + reason, static_cast<int64_t>(ids.size()));
  if (purpose != Purpose::kTrain) return;
  if (options_.sync) planner_->Forget(StepOf(ids.front()));
  else ForgetAnswers(ids);
}

void ReplayTable::ReopenOtherWeights(int64_t step) {
  if (announced_.empty()) return;
  std::vector<uint64_t> others;
  for (const uint64_t id : AnsweredOf(step)) {
    if (compared_.contains(id)) continue;
    const auto head = store_->ReadHead(Purpose::kTrain, id);
    if (!head || !OtherWeights(head->policy)) continue;
    others.push_back(id);
  }
  if (others.empty()) return;
  Reopen(Purpose::kTrain, others, "other_weights");
  LogInfo(std::to_string(others.size()) + " groups of step " + std::to_string(step) +
          " were sampled by other weights than the learner has now: they are sampled again");
}

void ReplayTable::ReopenEvaluation(uint64_t begin, uint64_t end) {
  const std::vector<uint64_t> answered = Answered(Purpose::kEval, begin, end);
  std::vector<uint64_t> others;
  bool scored = false;
  for (const uint64_t id : answered) {
    const auto stored = store_->Read(Purpose::kEval, id, /*texts=*/false);
    if (!stored) continue;
    if (OtherWeights(stored->group.policy)) others.push_back(id);
    const auto& answers = stored->group.trajectories;
    scored |=
        std::any_of(answers.begin(), answers.end(), [](const Trajectory& t) { return t.scored; });
  }
  Reopen(Purpose::kEval, scored ? others : answered, scored ? "other_weights" : "unscored");
}

void ReplayTable::Trim(int64_t step) {
  if (step <= 0) return;
  if (step > options_.steps) {
    throw Error(ErrorCode::kInvalidArgument, "cannot trim before step " + std::to_string(step) +
                                                 " of a run of " + std::to_string(options_.steps) +
                                                 " steps");
  }
  uint64_t before = FirstOf(step);
  int64_t plans_before = step;
  {
    MutexLock lock(mu_);
    if (!options_.sync) {
      before = TakenBelow(step);
      plans_before = PlansBelow(before);
    }
    for (uint64_t id = store_->TrimmedBefore(Purpose::kTrain); id < before; ++id) {
      if (!train_.IsDone(id)) {
        throw Error(ErrorCode::kInvalidArgument, "cannot trim before step " + std::to_string(step) +
                                                     ": lease " + std::to_string(id) +
                                                     " is not complete");
      }
    }
  }
  store_->Trim(Purpose::kTrain, before);
  store_->TrimPlans(plans_before);
  const int64_t version = step + options_.version_base;
  store_->TrimEvaluations(version);
  MutexLock lock(mu_);
  train_.SetDoneBefore(before);
  ready_.SetTakenBefore(before);
  eval_.SetDoneBefore(store_->TrimmedBefore(Purpose::kEval));
  const auto keep = std::pair(version, std::numeric_limits<int32_t>::min());
  evaluations_.erase(evaluations_.begin(), evaluations_.lower_bound(keep));
  opened_evaluations_.erase(opened_evaluations_.begin(), opened_evaluations_.lower_bound(keep));
}

}  // namespace plumb::replay
