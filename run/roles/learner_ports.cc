#include "run/roles/learner_ports.h"

#include <algorithm>
#include <exception>
#include <string_view>
#include <thread>
#include <utility>

#include "common/base/log.h"
#include "replay/table/table.h"
#include "run/session/interrupt.h"

namespace plumb::run {

using SteadyClock = std::chrono::steady_clock;
constexpr std::chrono::seconds kLine{30};  // a wait says what it waits for this often

namespace {

// While it lives the weights are those of a whole step, and a signal finds the run waiting.
class Waiting {
 public:
  Waiting(const std::string& answers, std::string then) : then_(std::move(then)) {
    NowBusy(Busy::kWholeWeights, answers);
  }
  ~Waiting() {
    if (std::uncaught_exceptions() > 0) NowBusy(Busy::kSaving);
    else NowBusy(Busy::kUpdating, then_);
  }

 private:
  const std::string then_;
};

// "waiting for 2 of 8 groups of step 0: leases 3, 4 at actor 'local' for 10 s" as the progress line
// counts, without who owes them: the log has that.
std::string ForPeople(const std::string& why) {
  constexpr std::string_view kStep = " of step ";
  const size_t at = why.find(kStep);
  if (at == std::string::npos) return why;
  const size_t digits = at + kStep.size(), end = why.find_first_not_of("0123456789", digits);
  if (end == digits || (end == std::string::npos && digits == why.size())) return why;
  const std::string rest = end == std::string::npos ? "" : why.substr(end);
  return why.substr(0, digits) + std::to_string(std::stoll(why.substr(digits)) + 1) +
         (rest.starts_with(": ") ? "" : rest);
}

}  // namespace

bool TryAgain(const Error& error) {
  return error.code() == ErrorCode::kUnavailable || error.code() == ErrorCode::kDeadline ||
         error.code() == ErrorCode::kNoSpace;
}

int64_t ProgressOf(const std::map<std::string, int64_t>& counters) {
  int64_t sum = 0;
  for (const char* name : {"inserts", "requeued", "dropped/equal_rewards", "reward/groups",
                           "actor/generated_tokens", "import/rows"}) {
    if (const auto found = counters.find(name); found != counters.end()) sum += found->second;
  }
  return sum;
}

int64_t LearnerPorts::Progress() {
  try {
    const auto counters = ring_.watch.Counters();
    if (const auto found = counters.find("actor/generated_tokens"); found != counters.end())
      tokens_ = found->second;
    return ProgressOf(counters);
  } catch (const Error& e) {
    if (!TryAgain(e)) throw;
    return progress_;  // who is away gets nothing done
  }
}

void LearnerPorts::Wait(SteadyClock::duration patience, const Ask& ask) {
  Deadline stalled = SteadyClock::now() + patience;
  next_line_ = After(kLine);
  for (;;) {
    ring_.check();
    const Deadline slice = std::min(stalled, After(ring_.slice));
    try {
      if (!announced_ && published_.version >= 0) {
        ring_.watch.Announce(published_);
        announced_ = true;
      }
      ask(slice);
      return;
    } catch (const Error& e) {
      ring_.check();
      if (!TryAgain(e)) throw;
      announced_ = false;  // the store may have been started again
      if (ring_.stop())
        throw Error(ErrorCode::kUnavailable,
                    std::string("the run was stopped while ") + e.message(), e.where());
      const int64_t now = Progress();
      if (now != progress_) {
        progress_ = now;
        stalled = SteadyClock::now() + patience;
      } else if (SteadyClock::now() >= stalled) {
        throw Error(
            ErrorCode::kDeadline,
            e.message() + "; nothing was generated, scored or stored for " +
                std::to_string(std::chrono::duration_cast<std::chrono::seconds>(patience).count()) +
                " s (run.stall_seconds)",
            e.where());
      }
      if (SteadyClock::now() >= next_word_) {
        next_word_ = After(ring_.next_words);
        const bool counted = tokens_ > 0;
        ring_.waits(ForPeople(e.message()) +
                    (counted ? "; " + std::to_string(tokens_) + " tokens generated so far" : ""));
      }
      if (SteadyClock::now() >= next_line_) {
        next_line_ = After(kLine);
        LogInfo(e.what());
      }
      std::this_thread::sleep_until(slice);  // a question that found nobody came back at once
    }
  }
}

void LearnerPorts::WaitFor(const std::string& answers, Deadline deadline, const Ask& ask) {
  const auto first = next_word_ = After(ring_.first_word);
  try {
    Wait(deadline - SteadyClock::now(), ask);
  } catch (...) {
    next_word_ = kNoWord;
    throw;
  }
  const bool said = std::exchange(next_word_, kNoWord) != first;
  if (said) ring_.waits(answers + " are there");
}

std::vector<TrajectoryGroup> LearnerPorts::Next(int64_t step, Deadline deadline) {
  const std::string number = std::to_string(step + 1);  // as the progress line counts
  const std::string answers = "the answers of step " + number;
  const Waiting waiting(answers, "the end of step " + number);
  std::vector<TrajectoryGroup> groups;
  WaitFor(answers, deadline, [&](Deadline slice) { groups = ring_.store.Next(step, slice); });
  ring_.updates(step);
  return groups;
}

std::vector<TrajectoryGroup> LearnerPorts::Evaluate(int64_t version, int num_samples,
                                                    Deadline deadline) {
  const std::string answers = "the answers of the evaluation";
  const Waiting waiting(answers, "the end of the evaluation");
  std::vector<TrajectoryGroup> groups;
  WaitFor(answers, deadline,
          [&](Deadline slice) { groups = ring_.store.Evaluate(version, num_samples, slice); });
  return groups;
}

void LearnerPorts::Finish() {
  try {
    ring_.store.Finish();
  } catch (const Error& e) {
    if (!TryAgain(e)) throw;
    // whoever started it ends it
    LogWarning(std::string("the store was not told that the run has ended: ") + e.what());
  }
}

std::map<std::string, int64_t> LearnerPorts::Counters() {
  std::map<std::string, int64_t> counters;
  try {
    Patiently([&] {
      counters = ring_.watch.Counters();
      if (counters.contains("import/rows"))
        throw Error(ErrorCode::kUnavailable, "the store imports its prompts");
    });
  } catch (const Error& e) {
    if (!ring_.stop() || !TryAgain(e)) throw;
    LogWarning(std::string("a step's metrics lack the store's counters: ") + e.what());
    counters.clear();
  }
  return counters;
}

std::string LearnerPorts::StoreState() {
  try {
    Patiently([&] { store_state_ = replay::ReplayTable::CursorText(ring_.watch.CursorAt(0)); });
  } catch (const Error& e) {
    if (!ring_.stop() || !TryAgain(e) || store_state_.empty()) throw;
    LogWarning(std::string("the checkpoint is saved without a new word of the store: ") + e.what());
  }
  return store_state_;
}

int64_t LearnerPorts::Resume(int64_t step, const std::string& store_state) {
  replay::StoreCursor cursor;
  if (!store_state.empty()) cursor = replay::ReplayTable::ParseCursor(store_state);
  cursor.next_step = step;
  int64_t reopened = 0;
  Patiently([&] { reopened = ring_.store.Resume(cursor); });
  return reopened;
}

void LearnerPorts::Trim(int64_t step) {
  try {
    (ring_.stop() ? ring_.watch : ring_.store).Trim(step);
  } catch (const Error& e) {
    if (!TryAgain(e)) throw;
    LogWarning(
        std::string("the store keeps what no checkpoint needs any more until the next one: ") +
        e.what());
  }
}

void LearnerPorts::Publish(const PolicyVersion& version, std::span<const WeightSet> sets) {
  published_ = version;
  announced_ = false;
  // Before an actor can sample with it: the store takes no group of a version that it has not heard
  // of. One that is away now hears of it with the next question, and until then of no group either.
  try {
    ring_.watch.Announce(version);
    announced_ = true;
  } catch (const Error& e) {
    if (!TryAgain(e)) throw;
  }
  ring_.weights.Publish(version, sets);
}

}  // namespace plumb::run
