// How long a run still takes: its steps, checkpoints and evaluations to come.
//
// Purpose: a step costs what the last ones did, the newest counting most (a machine that others use
// too is now quick, now slow), the very first (which takes memory and warms up) apart; a checkpoint
// what the ones before did a byte, and one that is written beside the steps what they waited for;
// an evaluation what the ones before did. Before a checkpoint was made, a usual disk's speed stands
// for it, and beside the steps that of a copy. Thread safety: none. Units: seconds, bytes. Knows no
// clock: it is told what things took.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>

namespace plumb::run {

struct RunPlan {
  int64_t steps = 0;
  int64_t checkpoint_every = 0;  // steps; 0: only at the end
  int64_t eval_every = 0;        // steps; 0: only at the end
  // Of a whole batch, what a step has; never falls. Empty: all of it.
  std::function<double(int64_t step)> share = nullptr;
};

class TimeLeft {
 public:
  explicit TimeLeft(const RunPlan& plan) : plan_(plan) {}

  // Of a checkpoint while the run goes on, and of the last. `beside`: the steps go on while one of
  // the former is written.
  void Sizes(int64_t each, int64_t last, bool beside = false);
  void Step(double seconds, int64_t step);
  // Written, and waited for.
  void Checkpoint(int64_t bytes, double seconds, double waited);
  // One at least: the run ends with one, too.
  void Evaluation(double seconds);

  // When `done` steps of the run are done, and what is due behind the last of them is saved next.
  double After(int64_t done) const;

  static constexpr double kBytesPerSecond = 150e6;  // written, read back and summed
  static constexpr double kCopiedPerSecond = 3e9;
  static constexpr size_t kWindow = 30;  // steps
  static constexpr double kHalf = 10;    // steps later one counts half

 private:
  double StepSeconds() const;  // of a whole batch
  double Share(int64_t step) const { return plan_.share ? plan_.share(step) : 1; }

  const RunPlan plan_;
  int64_t each_ = 0, last_ = 0;
  int64_t steps_ = 0, evaluations_ = 0;  // heard of
  std::deque<double> recent_;            // of the last steps
  bool beside_ = false;
  double saved_bytes_ = 0, saved_seconds_ = 0, waited_seconds_ = 0, evaluation_seconds_ = 0;
};

}  // namespace plumb::run
