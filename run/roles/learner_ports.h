// The learner's ends of the ring: waits for batches as long as the others get on, and says which
// weights are whose.
//
// Purpose: stands between a LearnerLoop and the ports of its run, local or in processes.
//   Waiting: a question is asked in slices. It ends with the batch; with kDeadline when nothing was
//   generated, scored, stored or imported for as long as the loop would have waited (the distance
//   of its deadline: run.stall_seconds); with kUnavailable as soon as the run is to stop; with the
//   error of another role as soon as that has failed. kUnavailable, kDeadline and kNoSpace of a
//   port are no end: a store that was restarted or whose disk was full is asked again.
//   A wait for answers that takes long says what it waits for (RingAround::waits), so that nobody
//   takes a first step of a minute for one that hangs.
//   Weights: each version is announced to the store before an actor can have it, and with every
//   question to a store that may have been restarted meanwhile.
// Thread safety: none, the learner's thread owns it. Ownership: borrows everything.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/record/ports.h"
#include "replay/table/store_port.h"

namespace plumb::run {

struct RingAround {
  replay::StorePort& store;  // gives the batches
  replay::StorePort& watch;  // hears of versions, and is asked what gets on
  WeightSink& weights;
  std::function<void()> check = [] {};                // throws what ended another role
  std::function<bool()> stop = [] { return false; };  // asked between slices
  // What a long wait for answers waits for, and when they are there, for people: after first_word
  // and then as often as next_words.
  std::function<void(const std::string&)> waits = [](const std::string&) {};
  // The answers of `step` (0-based) are there: what follows asks nobody anything until it is done.
  std::function<void(int64_t step)> updates = [](int64_t) {};
  std::chrono::milliseconds first_word{10'000}, next_words{30'000};
  std::chrono::milliseconds slice{500};
  std::chrono::milliseconds patience{
      300'000};  // of questions without a deadline: run.stall_seconds
};

// What of a store's counters and of what roles report to it grows only when something got done.
int64_t ProgressOf(const std::map<std::string, int64_t>& counters);

// Errors after which a port is asked again.
bool TryAgain(const Error& error);

class LearnerPorts : public BatchSource, public WeightSink {
 public:
  explicit LearnerPorts(RingAround ring) : ring_(std::move(ring)) {}
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline deadline) override;
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int num_samples,
                                        Deadline deadline) override;
  void Finish() override;
  bool WantsBytes() const override { return ring_.weights.WantsBytes(); }
  bool TakesFromDevice() const override { return ring_.weights.TakesFromDevice(); }
  void Publish(const PolicyVersion& version, std::span<const WeightSet> sets) override;

  // What is asked and told between the steps, with the same patience; once the run is to stop, it
  // is asked once. For a step's metrics; empty where the run is to stop and nobody answers.
  std::map<std::string, int64_t> Counters();
  // What a checkpoint says of the store. What that has seen is no less later: where it has ended
  // before a run that is to stop, its last word is kept.
  std::string StoreState();
  // The store goes back to what a checkpoint of `step` said of it; without a word of it, to that
  // step. Returns how many leases are answered afresh.
  int64_t Resume(int64_t step, const std::string& store_state);
  // One that found no room, or nobody, is made up for by the next.
  void Trim(int64_t step);

 private:
  using Ask = std::function<void(Deadline slice)>;
  void Patiently(const std::function<void()>& ask) {
    Wait(ring_.patience, [&](Deadline) { ask(); });
  }
  void Wait(std::chrono::steady_clock::duration patience, const Ask& ask);
  // As Wait, and says of `answers` that it waits.
  void WaitFor(const std::string& answers, Deadline deadline, const Ask& ask);
  int64_t Progress();

  const RingAround ring_;
  PolicyVersion published_;
  bool announced_ = false;   // published_, to the store as it lives now
  int64_t progress_ = 0;     // as last seen
  int64_t tokens_ = 0;       // that all actors generated, as last seen
  std::string store_state_;  // as last told
  std::chrono::steady_clock::time_point next_line_{}, next_word_ = kNoWord;
  static constexpr auto kNoWord = std::chrono::steady_clock::time_point::max();
};

}  // namespace plumb::run
