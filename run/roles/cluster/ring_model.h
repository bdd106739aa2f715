// How long a step of a ring would take on so many machines, from what a finished run measured.
//
//   generate   tokens over the actors' rate; an actor answers whole groups
//   reward     seconds of the scorers, shared out
//   store      groups written and synced, at the speed of the disk that was measured
//   transfer   weights from the head to every actor, or to the first of a tree (run.relay), groups
//              back, through the head's network
//   learner    forward, backward and update, over its ranks, with the sums between them; publishing
//
// Under sync the learner waits for generation (rewards and store run beside it), then actors wait
// for the learner and for its weights: the times add up. Under async all of it goes on at once: the
// slowest is the step.
// Thread safety: pure functions. Units: seconds, bytes, tokens. Errors: kNotFound and
// kInvalidArgument for a run that measured nothing.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::run {

// Of a mean step.
struct RingRates {
  bool sync = true;
  int64_t steps = 0;        // that were looked at
  double groups = 0;        // prompts
  double tokens = 0;        // generated
  double tokens_per_s = 0;  // of one actor
  double reward_s = 0;      // in all scorers together
  double train_s = 0;       // of one rank
  double publish_s = 0;
  // That the learner waited longer than was generated: leases, the last score.
  double latency_s = 0;
  double other_s = 0;  // of the learner: metrics, samples, checkpoints
  double measured_step_s = 0;
  double weight_bytes = 0;                  // that change with a version
  double group_bytes = 0;                   // of one group in the store
  double disk_bytes_per_s = 0, sync_s = 0;  // of the store's disk
  double network_bytes_per_s = 1.25e9;      // of the head, and of each actor; 10 Gbit/s
  int64_t relay = 0;                        // actors that one hands weights on to; 0: none does
};

// Means of the run's steps, without the first, which warms up; `actors` generated. `sync`,
// `groups`, `weight_bytes` and network are the caller's to set; the disk is measured with a small
// file in `probe`.
RingRates ReadRingRates(const std::string& run, const std::string& probe, int64_t actors);

struct Ring {
  int64_t actors = 1, rewards = 1, learners = 1;
};

struct RingTime {
  static constexpr std::array<const char*, 5> kStages = {"generate", "reward", "store", "transfer",
                                                         "learner"};
  std::array<double, 5> stage{};  // seconds of a step
  double step = 0;
  size_t bottleneck = 0;    // of stages: the one that the step would gain most from
  int64_t idle_actors = 0;  // that get no group of a step
};
RingTime PredictStep(const RingRates& rates, const Ring& ring);

// The best way to use so many machines, or GPUs: learners and actors; each has the rate of what was
// measured. `rewards` are besides.
Ring BestRing(const RingRates& rates, int64_t machines, int64_t rewards);

// A table: the ring as it was measured and predicted, the one asked for, and 8, 64 and 1,024.
std::string RingText(const RingRates& rates, const std::vector<Ring>& rings);

}  // namespace plumb::run
