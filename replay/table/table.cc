#include "replay/table/table.h"

#include <algorithm>
#include <limits>
#include <list>
#include <numeric>

#include "common/base/error.h"
#include "common/base/log.h"
#include "replay/store/record.h"

namespace plumb::replay {
namespace {

constexpr int kNamedLeases = 8;  // ids written out in a message; the rest is a number
// With a clock of our own, waits look at it this often.
constexpr std::chrono::milliseconds kWaitSlice{100};
constexpr std::chrono::seconds kWaitLine{30};  // a wait says what it waits for this often
constexpr size_t kMaxReporters = 10'000;

int64_t SteadyNowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

ReplayTable::ReplayTable(Store* store, TableOptions options)
    : store_(store),
      options_(std::move(options)),
      batches_(options_.prompts_per_step, options_.ramp_steps, options_.ramp_start),
      actors_(options_.actors),
      train_(options_.lease_timeout_ms),
      eval_(options_.lease_timeout_ms) {
  const auto refuse = [](const std::string& why) { throw Error(ErrorCode::kInvalidArgument, why); };
  if (options_.prompts_per_step < 1) refuse("rollout.prompts_per_step must be at least 1");
  if (options_.samples_per_prompt < 1) refuse("rollout.samples_per_prompt must be at least 1");
  if (options_.steps < 0) refuse("run.steps must not be negative");
  if (options_.max_staleness < 0) refuse("run.max_staleness must not be negative");
  if (options_.sync && options_.max_staleness != 0)
    refuse("run.max_staleness must be 0 under run.schedule = \"sync\"");
  if (options_.refill_rounds > 0 && options_.samples_per_prompt < 2) {
    refuse(
        "algorithm.refill_rounds draws in place of groups of equal reward: it needs "
        "rollout.samples_per_prompt >= 2");
  }
  if (options_.refill_rounds > 0 && options_.planner.prompts != PromptSampler::kPasses) {
    refuse("algorithm.refill_rounds draws its prompts in passes: keep replay.prompts = \"passes\"");
  }
  if (options_.lease_timeout_ms < 1) refuse("the lease time must be positive");
  if (options_.actors < 1) refuse("run.actors must be at least 1");
  const uint64_t rows = store_->PromptCount(kTrainDataset);
  if (rows == 0) refuse("the store holds no training prompts: import a dataset first (data.train)");
  const uint64_t needed = static_cast<uint64_t>(options_.prompts_per_step);
  if (rows < needed) {
    refuse("one step takes " + std::to_string(needed) +
           " prompts (rollout.prompts_per_step) but the training data has " + std::to_string(rows) +
           " rows");
  }
  planner_ = std::make_unique<StepPlanner>(
      store_, options_.planner, options_.seed, options_.shuffle, options_.steps, batches_,
      options_.version_base, std::max(options_.refill_rounds, options_.max_requeues));
  for (const Purpose purpose : {Purpose::kTrain, Purpose::kEval}) {
    Book(purpose).SetDoneBefore(store_->TrimmedBefore(purpose));
    for (const LeaseMark& mark : store_->Leases(purpose)) {
      Book(purpose).Restore(mark.lease_id, mark.record.complete, mark.record.attempt,
                            mark.record.requeues);
    }
  }
  for (const Store::Evaluation& e : store_->Evaluations())
    evaluations_[{e.version, e.samples}] = e.prompts;
  if (!options_.sync) RebuildReady();
}

ReplayTable::~ReplayTable() = default;

int64_t ReplayTable::Now() const { return options_.now_ms ? options_.now_ms() : SteadyNowMs(); }

uint64_t ReplayTable::TrainLimit() const {
  if (asked_step_ < 0 || finish_) return 0;
  // A learner that goes through chosen steps again: what its weights sampled now would be stale
  // before a step could take it.
  if (asked_step_ < undecided_step_ - options_.max_staleness) return 0;
  const int64_t steps = std::min(options_.steps, asked_step_ + options_.max_staleness + 1);
  return FirstOf(steps);
}

PromptLease ReplayTable::MakeLease(Purpose purpose, const LeaseBook::Held& held) const {
  PromptLease lease;
  lease.lease_id = held.lease_id;
  lease.purpose = purpose;
  lease.attempt = held.attempt;
  lease.deadline_ms = held.deadline_ms;
  if (purpose == Purpose::kTrain) {
    lease.num_samples = options_.samples_per_prompt;
    lease.policy_version = options_.sync ? StepOf(held.lease_id) + options_.version_base : -1;
    const auto row = planner_->RowOf(held.lease_id, RoundOf(held.requeues));
    PLUMB_CHECK(row.has_value(), "leases go out behind their step's plan");
    lease.prompt = store_->ReadPrompt(kTrainDataset, *row, &lease.prompt_sum);
  } else {
    const EvalLease parts = ParseEvalLease(held.lease_id);
    lease.num_samples = parts.samples;
    lease.policy_version = parts.version;
    lease.prompt = store_->ReadPrompt(kEvalDataset, parts.row, &lease.prompt_sum);
  }
  return lease;
}

std::vector<PromptLease> ReplayTable::Lease(int max_groups, Deadline deadline) {
  return LeaseTo("local", max_groups, deadline);
}

std::vector<PromptLease> ReplayTable::LeaseTo(const std::string& actor, int max_groups,
                                              Deadline deadline) {
  if (max_groups < 1)
    throw Error(ErrorCode::kInvalidArgument,
                "an actor asked for " + std::to_string(max_groups) + " leases");
  MutexLock lock(mu_);
  for (;;) {
    const int64_t now = Now();
    for (LeaseBook* book : {&train_, &eval_}) {
      const auto expired = book->Expire(now);
      if (!expired.empty()) store_->Count("expired", static_cast<int64_t>(expired.size()));
    }
    std::vector<std::pair<Purpose, LeaseBook::Held>> taken;
    // an evaluation holds up the learner: first
    for (const Purpose purpose : {Purpose::kEval, Purpose::kTrain}) {
      const uint64_t limit =
          purpose == Purpose::kEval ? std::numeric_limits<uint64_t>::max() : TrainLimit();
      LeaseBook& book = Book(purpose);
      int most = max_groups - static_cast<int>(taken.size());
      if (const int64_t actors = actors_.load(); actors > 1) {
        const auto share = (static_cast<int64_t>(book.Unanswered(limit)) + actors - 1) / actors;
        most = static_cast<int>(std::clamp<int64_t>(share - book.HeldBy(actor), 0, most));
      }
      for (auto& held : book.HandOut(most, limit, actor, now)) {
        taken.emplace_back(purpose, std::move(held));
      }
    }
    if (!taken.empty()) {
      std::vector<LeaseMark> marks;
      for (const auto& [purpose, held] : taken) {
        marks.push_back({purpose, held.lease_id, {false, held.attempt, held.requeues, 0}});
      }
      std::vector<PromptLease> leases;
      try {
        store_->RecordLeases(marks);
        for (const auto& [purpose, held] : taken) leases.push_back(MakeLease(purpose, held));
      } catch (const Error&) {
        for (const auto& [purpose, held] : taken)
          Book(purpose).Release(held.lease_id, held.attempt);
        throw;
      }
      store_->Count("leased", static_cast<int64_t>(taken.size()));
      return leases;
    }
    if (finish_ && waiting_ == 0) return {};
    if (std::chrono::steady_clock::now() >= deadline) return {};
    changed_.wait_until(lock, std::min(deadline, After(kWaitSlice)));
  }
}

void ReplayTable::Release(std::span<const PromptLease> leases) {
  MutexLock lock(mu_);
  int64_t released = 0;
  for (const PromptLease& lease : leases)
    released += Book(lease.purpose).Release(lease.lease_id, lease.attempt) ? 1 : 0;
  if (released > 0) store_->Count("released", released);
  changed_.notify_all();
}

void ReplayTable::ShareAmong(int64_t actors) {
  PLUMB_CHECK(actors >= 1);
  if (actors_.exchange(actors) == actors) return;
  MutexLock lock(mu_);
  changed_.notify_all();
}

int ReplayTable::ReleaseActor(const std::string& actor) {
  MutexLock lock(mu_);
  const int released = train_.ReleaseHolder(actor) + eval_.ReleaseHolder(actor);
  if (released > 0) store_->Count("released", released);
  changed_.notify_all();
  return released;
}

int ReplayTable::RenewActor(const std::string& actor) {
  MutexLock lock(mu_);
  return train_.RenewHolder(actor, Now()) + eval_.RenewHolder(actor, Now());
}

bool ReplayTable::Finished() {
  MutexLock lock(mu_);
  return finish_ && waiting_ == 0;
}

std::optional<std::string> ReplayTable::RefusalReason(const GroupHead& group) const {
  const PromptLease& lease = group.lease;
  if (group.run_id != store_->run_id()) return "other_run";
  if (OtherWeights(group.policy)) return "other_weights";
  if (lease.purpose == Purpose::kEval) {
    const EvalLease parts = ParseEvalLease(lease.lease_id);
    const auto asked = evaluations_.find({parts.version, parts.samples});
    if (asked == evaluations_.end() || parts.row >= asked->second) return "unknown_lease";
    if (lease.prompt.dataset != kEvalDataset || lease.prompt.row != parts.row)
      return "wrong_prompt";
    if (group.policy.version != parts.version || group.oldest_version != parts.version)
      return "wrong_version";
    if (lease.num_samples != parts.samples) return "wrong_samples";
    return std::nullopt;
  }
  const int64_t step = StepOf(lease.lease_id);
  if (step >= options_.steps) return "unknown_lease";
  const uint32_t round = RoundOf(train_.Requeues(lease.lease_id));
  if (lease.prompt.dataset != kTrainDataset ||
      planner_->RowOf(lease.lease_id, round) != lease.prompt.row)
    return "wrong_prompt";
  const bool more = options_.branches && lease.num_samples > options_.samples_per_prompt;
  if (!more && lease.num_samples != options_.samples_per_prompt) return "wrong_samples";
  const int64_t version = (options_.sync ? step : OpenStep()) + options_.version_base;
  if (group.oldest_version < version - options_.max_staleness) return "stale";
  if (options_.sync && group.policy.version != version) return "wrong_version";
  return std::nullopt;
}

std::vector<InsertResult> ReplayTable::InsertMany(std::span<const ScoredBody> groups) {
  std::vector<InsertResult> results(groups.size(), InsertResult::kRefused);
  std::vector<const ScoredBody*> stored;  // whole, or dropped
  std::vector<size_t> stored_as;          // their places among `groups`
  std::map<size_t, Verdict> drops;        // by place
  std::list<ScoredBody> dropped;
  for (const ScoredBody& group : groups) CheckScores(group.body.head(), group.scores);
  {
    MutexLock lock(mu_);
    for (size_t i = 0; i < groups.size(); ++i) {
      const GroupHead& head = groups[i].body.head();
      const PromptLease& lease = head.lease;
      LeaseBook& book = Book(lease.purpose);
      if (book.IsDone(lease.lease_id) && head.run_id == store_->run_id()) {
        results[i] = InsertResult::kDuplicate;  // acknowledged again, whatever its version
        store_->Count("duplicates");
        continue;
      }
      if (const auto reason = RefusalReason(head)) {
        store_->Count("refused/" + *reason);
        // Only what the lease's holder itself answered wrongly frees it; a stranger's message must
        // not.
        if (reason == "stale" || reason == "wrong_version" || reason == "other_weights") {
          if (book.Release(lease.lease_id, lease.attempt)) changed_.notify_all();
        }
        continue;
      }
      const bool train = lease.purpose == Purpose::kTrain;
      // An evaluation says how many of its answers have no score; it is never thrown away for them.
      const uint32_t requeues = book.Requeues(lease.lease_id);
      Verdict verdict =
          JudgeScores(groups[i].scores, train ? options_.unscored : OnFailure::kPenalty, requeues,
                      options_.max_requeues);
      if (verdict.unscored > 0) store_->Count("unscored_trajectories", verdict.unscored);
      if (verdict.aborted > 0) store_->Count("aborted_trajectories", verdict.aborted);
      const auto again = [&](const std::string& counter) {
        book.Requeue(lease.lease_id);
        store_->Count(counter);
        changed_.notify_all();
      };
      const ScoredBody* store = &groups[i];
      if (train && verdict.fate == Fate::kDrop) {
        dropped.push_back({groups[i].body, AsDropped(groups[i].scores, verdict.reason)});
        store = &dropped.back();
        drops.emplace(i, std::move(verdict));
      } else if (train && verdict.fate == Fate::kRequeue) {
        again("requeued");
        continue;
      } else if (train && options_.refill_rounds > 0 && EqualRewards(groups[i].scores)) {
        if (requeues < options_.refill_rounds) {
          again("dropped/equal_rewards");
          continue;
        }
        store_->Count("refill_limit");
      }
      stored.push_back(store);
      stored_as.push_back(i);
    }
  }
  if (stored.empty()) return results;
  // Outside the lock: the sync of the log is what takes time, and callers share it.
  const auto done = store_->Insert(stored);
  for (size_t k = 0; k < stored.size(); ++k) {
    const size_t i = stored_as[k];
    results[i] = done[k];
    const auto drop = drops.find(i);
    if (drop == drops.end() || done[k] != InsertResult::kInserted) continue;
    const auto& [fate, unscored, aborted, cause, reason] = drop->second;
    const GroupHead& head = groups[i].body.head();
    store_->Count("dropped/" + cause);
    store_->Count("dropped/trajectories", static_cast<int64_t>(head.answers.size()));
    drop_log_.Warning("dropped the group of lease " + std::to_string(head.lease.lease_id) + ", " +
                      std::to_string(unscored) + " of its " + std::to_string(head.answers.size()) +
                      " answers " +
                      (cause == "aborted" ? "were never generated: " : "have no score: ") + reason);
  }
  MutexLock lock(mu_);
  for (const size_t i : stored_as) {
    const GroupHead& head = groups[i].body.head();
    const PromptLease& lease = head.lease;
    Book(lease.purpose).Complete(lease.lease_id);
    if (OtherWeights(head.policy)) {  // the learner went back while it was written
      Reopen(lease.purpose, {lease.lease_id}, "other_weights");
      Book(lease.purpose).Open(lease.lease_id, lease.lease_id + 1);
      results[i] = InsertResult::kRefused;
    } else if (lease.purpose == Purpose::kTrain) {
      if (announced_.contains(head.policy.version)) compared_.insert(lease.lease_id);
      if (!options_.sync) NoteReady(head);
    }
  }
  changed_.notify_all();
  return results;
}

std::string ReplayTable::Missing(const Range& range) const {
  const auto& [purpose, first, count, what, step] = range;
  const LeaseBook& book = Book(purpose);
  // Under async any lease that is open may bring what is missing.
  const bool any = TakesReady(range);
  const uint64_t begin = any ? book.FirstNotDone() : first,
                 end = any ? TrainLimit() : first + count;
  uint64_t missing = 0;
  std::map<std::string, std::pair<std::string, int64_t>> by_holder;  // holder -> ids, held since
  std::map<std::string, int> listed;
  const int64_t now = Now();
  for (uint64_t id = begin; id < end; ++id) {
    if (book.IsDone(id)) continue;
    ++missing;
    const LeaseBook::Held* held = book.FindHeld(id);
    const std::string holder = held == nullptr ? "" : held->holder;
    auto& [ids, since] = by_holder.try_emplace(holder, "", now).first->second;
    if (held != nullptr) since = std::min(since, held->since_ms);
    if (++listed[holder] <= kNamedLeases) ids += (ids.empty() ? "" : ", ") + std::to_string(id);
  }
  if (any) missing = step < undecided_step_ ? 0 : count - std::min<uint64_t>(count, ready_.size());
  std::string text = "waiting for " + std::to_string(missing) + " of " + std::to_string(count) +
                     " groups of " + what;
  const char* separator = ": ";
  for (const auto& [holder, entry] : by_holder) {
    text += separator + std::string(listed[holder] == 1 ? "lease " : "leases ") + entry.first;
    if (listed[holder] > kNamedLeases)
      text += " and " + std::to_string(listed[holder] - kNamedLeases) + " more";
    text += holder.empty() ? " not handed out (no actor asks, or none has the weights)"
                           : " at actor '" + holder + "' for " +
                                 std::to_string((now - entry.second) / 1000) + " s";
    separator = "; ";
  }
  return text;
}

bool ReplayTable::IsComplete(const Range& range) {
  if (TakesReady(range)) return Choose(range.step);
  for (uint64_t id = range.begin; id < range.begin + range.count; ++id) {
    if (!Book(range.purpose).IsDone(id)) return false;
  }
  return true;
}

void ReplayTable::CheckComplete(const Range& range) {
  if (!IsComplete(range)) throw Error(ErrorCode::kDeadline, Missing(range));
}

void ReplayTable::Await(const Range& range, Deadline deadline, MutexLock& lock) {
  const auto started = std::chrono::steady_clock::now();
  auto next_line = started + kWaitLine;
  struct Wait {
    explicit Wait(ReplayTable& of) : table(of) { ++table.waiting_, table.changed_.notify_all(); }
    ~Wait() { --table.waiting_, table.changed_.notify_all(); }
    ReplayTable& table;
  };
  const Wait wait(*this);
  while (!IsComplete(range)) {
    changed_.wait_until(lock, std::min(deadline, next_line));
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) CheckComplete(range);
    if (now >= next_line && !IsComplete(range)) {
      next_line = now + kWaitLine;
      LogInfo(Missing(range));
    }
  }
}

void ReplayTable::ReadEach(const Range& range,
                           const std::function<bool(Purpose, uint64_t)>& read) const {
  std::vector<uint64_t> ids(range.count);
  std::iota(ids.begin(), ids.end(), range.begin);
  for (const uint64_t id : TakesReady(range) ? OwnGroups(range.step) : ids) {
    if (read(range.purpose, id)) continue;
    const bool trimmed = id < store_->TrimmedBefore(range.purpose);
    throw Error(trimmed ? ErrorCode::kNotFound : ErrorCode::kCorruption,
                "the group of lease " + std::to_string(id) + " of " + range.what +
                    (trimmed ? " was trimmed: no checkpoint kept needs it any more"
                             : " is complete but not in the store"),
                store_->path());
  }
  if (range.step < 0) return;
  for (const uint64_t id : planner_->Replayed(range.step)) {
    if (read(Purpose::kTrain, id)) continue;
    throw Error(ErrorCode::kCorruption,
                range.what + " was given the group of lease " + std::to_string(id) +
                    " to train on again, but it is not in the store",
                store_->path());
  }
}

std::vector<TrajectoryGroup> ReplayTable::Decoded(const Range& range) const {
  std::vector<TrajectoryGroup> groups;
  groups.reserve(static_cast<size_t>(range.count));
  ReadEach(range, [&](Purpose purpose, uint64_t id) {
    auto stored = store_->Read(purpose, id, /*texts=*/false);
    if (stored) groups.push_back(std::move(stored->group));
    return stored.has_value();
  });
  return groups;
}

std::string ReplayTable::Sealed(const Range& range) const {
  BatchWriter batch(range.count);
  ReadEach(range, [&](Purpose purpose, uint64_t id) {
    return store_->ReadSealed(
        purpose, id, [&](std::string_view key, std::string_view value, std::string_view scores) {
          batch.Add(key, value, scores);
        });
  });
  return batch.Take();
}

ReplayTable::Range ReplayTable::AskStep(int64_t step) {
  if (step < 0 || step >= options_.steps) {
    throw Error(ErrorCode::kInvalidArgument, "asked for step " + std::to_string(step) +
                                                 " of a run of " + std::to_string(options_.steps) +
                                                 " steps (run.steps)");
  }
  const uint64_t begin = FirstOf(step), count = FirstOf(step + 1) - begin;
  if (asked_step_ != step) {
    planner_->PlanPrompts(step, std::min(options_.steps, step + options_.max_staleness + 1));
    ReopenOtherWeights(step);
    compared_.erase(compared_.begin(), compared_.lower_bound(begin));
    asked_step_ = step;  // may be lower than before: a learner that resumed
    // Under async also what earlier steps left open.
    train_.Open(options_.sync ? begin : train_.FirstNotDone(), TrainLimit());
    changed_.notify_all();
  }
  return {Purpose::kTrain, begin, count, "step " + std::to_string(step), step};
}

ReplayTable::Range ReplayTable::AskEvaluation(int64_t version, int32_t num_samples) {
  const uint64_t base = EvalLeaseBase(version, num_samples);
  const uint64_t rows = store_->PromptCount(kEvalDataset);
  const uint64_t prompts =
      options_.eval_prompts == 0 ? rows : std::min(rows, options_.eval_prompts);
  if (prompts == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "the store holds no held-out prompts: set data.eval, or eval.every = 0");
  }
  if (prompts > kMaxEvalPrompts) {
    throw Error(ErrorCode::kInvalidArgument,
                "at most " + std::to_string(kMaxEvalPrompts) +
                    " held-out prompts can be evaluated: lower data.eval_prompts");
  }
  const auto key = std::pair(version, num_samples);
  auto asked = evaluations_.find(key);
  if (asked == evaluations_.end()) {
    store_->PutEvaluation(version, num_samples, prompts);
    asked = evaluations_.emplace(key, prompts).first;
  } else if (asked->second != prompts) {
    throw Error(ErrorCode::kConflict,
                "version " + std::to_string(version) + " was evaluated on " +
                    std::to_string(asked->second) + " held-out prompts before, now " +
                    std::to_string(prompts) + " are asked for: keep data.eval_prompts as it was");
  }
  if (!opened_evaluations_.contains(key)) {
    ReopenEvaluation(base, base + prompts);
    opened_evaluations_.insert(key);
    eval_.Open(base, base + prompts);
    changed_.notify_all();
  }
  return {Purpose::kEval, base, prompts, "the evaluation of version " + std::to_string(version)};
}

std::vector<TrajectoryGroup> ReplayTable::Next(int64_t step, Deadline deadline) {
  MutexLock lock(mu_);
  const Range range = AskStep(step);
  Await(range, deadline, lock);
  lock.unlock();
  return Decoded(range);
}

std::vector<Prompt> ReplayTable::Prompts(std::span<const PromptRef> refs) {
  std::vector<Prompt> prompts;
  for (const PromptRef& ref : refs) prompts.push_back(store_->FindPrompt(ref));
  return prompts;
}

std::optional<std::string> ReplayTable::TryNext(int64_t step, bool late) {
  MutexLock lock(mu_);
  const Range range = AskStep(step);
  if (late) CheckComplete(range);
  if (!IsComplete(range)) return std::nullopt;
  lock.unlock();
  return Sealed(range);
}

bool ReplayTable::Ready(int64_t step, bool late) {
  MutexLock lock(mu_);
  const Range range = AskStep(step);
  if (late) CheckComplete(range);
  return IsComplete(range);
}

bool ReplayTable::EvaluationReady(int64_t version, int num_samples, bool late) {
  MutexLock lock(mu_);
  const Range range = AskEvaluation(version, num_samples);
  if (late) CheckComplete(range);
  return IsComplete(range);
}

std::vector<TrajectoryGroup> ReplayTable::Evaluate(int64_t version, int num_samples,
                                                   Deadline deadline) {
  MutexLock lock(mu_);
  const Range range = AskEvaluation(version, num_samples);
  Await(range, deadline, lock);
  lock.unlock();
  return Decoded(range);
}

std::optional<std::string> ReplayTable::TryEvaluate(int64_t version, int num_samples, bool late) {
  MutexLock lock(mu_);
  const Range range = AskEvaluation(version, num_samples);
  if (late) CheckComplete(range);
  if (!IsComplete(range)) return std::nullopt;
  lock.unlock();
  return Sealed(range);
}

void ReplayTable::Finish() {
  MutexLock lock(mu_);
  finish_ = true;
  changed_.notify_all();
}

std::map<std::string, int64_t> ReplayTable::Counters() {
  auto counters = store_->Counters();
  MutexLock lock(mu_);
  counters["waiting"] = waiting_;
  counters["held"] = static_cast<int64_t>(train_.held() + eval_.held());
  counters["queue"] = static_cast<int64_t>(ready_.size());  // under sync nothing is generated ahead
  for (const auto& [role, counted] : reports_) {
    for (const auto* part : {&counted.now, &counted.past}) {
      for (const auto& [name, value] : *part) counters[name] += value;
    }
  }
  return counters;
}

void ReplayTable::Report(const std::string& role, uint64_t epoch,
                         std::map<std::string, int64_t> counters) {
  MutexLock lock(mu_);
  if (!reports_.contains(role) && reports_.size() >= kMaxReporters) {
    throw Error(ErrorCode::kInvalidArgument,
                "more than " + std::to_string(kMaxReporters) + " roles report counters");
  }
  Counted& counted = reports_[role];
  if (epoch < counted.epoch) return;  // the last words of a life that is over
  if (epoch > counted.epoch) {
    for (const auto& [name, value] : counted.now) counted.past[name] += value;
    counted.epoch = epoch;
  }
  counted.now = std::move(counters);
}

std::string ReplayTable::Describe() const {
  MutexLock lock(mu_);
  if (asked_step_ < 0) return "no step asked for yet";
  const uint64_t begin = FirstOf(asked_step_), count = FirstOf(asked_step_ + 1) - begin;
  return Missing(
      {Purpose::kTrain, begin, count, "step " + std::to_string(asked_step_), asked_step_});
}

}  // namespace plumb::replay
