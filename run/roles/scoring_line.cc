#include "run/roles/scoring_line.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/log.h"
#include "replay/store/record.h"
#include "run/roles/learner_ports.h"

namespace plumb::run {

using SteadyClock = std::chrono::steady_clock;

replay::ScoredBody ScoreSealed(FinishedGroup& sealed, Scorer& scorer,
                               replay::PromptCache& prompts) {
  TrajectoryGroup group = sealed.body->ForScoring();
  if (group.lease.prompt_sum != 0) {
    Prompt whole = prompts.Get(replay::RefOf(group.lease));
    whole.tokens = std::move(group.lease.prompt.tokens);
    group.lease.prompt = std::move(whole);
  }
  scorer.Score(group);
  return {std::move(*sealed.body), replay::ScoresOf(group)};
}

ScoringLine::ScoringLine(Score score, Insert insert, ScoringOptions options)
    : score_(std::move(score)),
      insert_(std::move(insert)),
      options_(options),
      scorers_left_(std::max<int64_t>(1, options.side_by_side)) {
  PLUMB_CHECK(options_.insert_groups > 0);
  for (int64_t i = 0, n = scorers_left_; i < n; ++i) threads_.emplace_back([this] { RunScorer(); });
  threads_.emplace_back([this] { RunInserter(); });
}

ScoringLine::~ScoringLine() { Close(); }

bool ScoringLine::Push(FinishedGroup& group, Deadline deadline, std::function<void()> done) {
  MutexLock lock(mu_);
  const auto room = [&]() PLUMB_REQUIRES(mu_) {
    return closed_ || options_.capacity == 0 || inside_ < options_.capacity;
  };
  if (!changed_.wait_until(lock, deadline, room) || closed_) return false;
  ++inside_;
  queue_.push_back({std::move(group), std::move(done)});
  changed_.notify_all();
  return true;
}

void ScoringLine::Close() {
  {
    MutexLock lock(mu_);
    closed_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void ScoringLine::Fail(std::exception_ptr error) {
  MutexLock lock(mu_);
  if (!error_) error_ = error;
  failed_ = true;
  closed_ = true;
  changed_.notify_all();
}

void ScoringLine::Rethrow() const {
  MutexLock lock(mu_);
  if (error_) std::rethrow_exception(error_);
}

double ScoringLine::score_seconds() const {
  MutexLock lock(mu_);
  const auto running =
      busy_ > 0 ? std::chrono::duration<double>(SteadyClock::now() - busy_since_).count() : 0;
  return busy_seconds_ + running;
}

void ScoringLine::RunScorer() {
  MutexLock lock(mu_);
  for (;;) {
    changed_.wait(lock, [&]() PLUMB_REQUIRES(mu_) { return closed_ || !queue_.empty(); });
    if (closed_) break;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    if (busy_++ == 0) busy_since_ = SteadyClock::now();
    lock.unlock();
    std::optional<replay::ScoredBody> scored;
    try {
      scored = ScoreOne(item.group);
    } catch (...) {
      Fail(std::current_exception());
    }
    lock.lock();
    if (--busy_ == 0)
      busy_seconds_ += std::chrono::duration<double>(SteadyClock::now() - busy_since_).count();
    if (scored) scored_.push_back({std::move(*scored), std::move(item.done)});
    changed_.notify_all();
  }
  --scorers_left_;
  changed_.notify_all();
}

void ScoringLine::RunInserter() {
  MutexLock lock(mu_);
  for (;;) {
    changed_.wait(lock,
                  [&]() PLUMB_REQUIRES(mu_) { return !scored_.empty() || scorers_left_ == 0; });
    if (scored_.empty() || failed_) return;
    std::vector<replay::ScoredBody> groups;
    std::vector<std::function<void()>> done;
    size_t bytes = 0;
    while (!scored_.empty() && groups.size() < options_.insert_groups &&
           (groups.empty() ||
            bytes + scored_.front().group.body.bytes().size() <= options_.insert_bytes)) {
      bytes += scored_.front().group.body.bytes().size();
      groups.push_back(std::move(scored_.front().group));
      done.push_back(std::move(scored_.front().done));
      scored_.pop_front();
    }
    lock.unlock();
    try {
      if (!Store(groups)) return;
      for (const auto& tell : done) {
        if (tell) tell();
      }
    } catch (...) {
      Fail(std::current_exception());
      return;
    }
    lock.lock();
    inside_ -= groups.size();
    changed_.notify_all();
  }
}

// Nothing: closed before that was possible.
std::optional<replay::ScoredBody> ScoringLine::ScoreOne(FinishedGroup& group) {
  LogEvery line(std::chrono::seconds(5));
  for (;;) {
    try {
      return score_(group);
    } catch (const Error& e) {
      if (!TryAgain(e) || e.code() == ErrorCode::kNoSpace) throw;
      line.Warning(std::string("a group cannot be scored yet, trying again: ") + e.what());
      MutexLock lock(mu_);
      if (changed_.wait_until(lock, After(options_.retry),
                              [&]() PLUMB_REQUIRES(mu_) { return closed_; }))
        return std::nullopt;
    }
  }
}

// False: closed before the store took them.
bool ScoringLine::Store(std::span<const replay::ScoredBody> groups) {
  LogEvery line(std::chrono::seconds(5));
  const Deadline full_until = After(options_.full_disk_patience);
  for (;;) {
    try {
      insert_(groups);
      return true;
    } catch (const Error& e) {
      if (!TryAgain(e)) throw;
      if (e.code() == ErrorCode::kNoSpace && SteadyClock::now() >= full_until) throw;
      line.Warning("the store took " + std::to_string(groups.size()) +
                   " scored groups not, trying again: " + e.what());
      MutexLock lock(mu_);
      if (changed_.wait_until(lock, After(options_.retry),
                              [&]() PLUMB_REQUIRES(mu_) { return closed_; }))
        return false;
    }
  }
}

}  // namespace plumb::run
