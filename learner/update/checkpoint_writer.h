// Writes checkpoints while the training goes on: a copy is taken, a thread writes it.
//
// Purpose: training waits for the copy alone, and for a checkpoint before that is not written yet;
// at most one is in flight. What it failed with comes out of the next call of Ended or Begin.
// Whatever ends the process meanwhile, the checkpoints that were whole stay
// (learner/update/checkpoint.h).
// Thread safety: one thread calls. Ownership: borrows the checkpoints, which nobody else writes
// meanwhile; owns the thread and the copies, whose memory it keeps from one to the next. Units:
// seconds. Errors: those of Checkpoints::Put; kIo where memory for the copy ends.
#pragma once

#include <atomic>
#include <exception>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "learner/update/checkpoint.h"
#include "learner/update/checkpoint_copy.h"

namespace plumb::learner {

class CheckpointWriter {
 public:
  explicit CheckpointWriter(Checkpoints& checkpoints) : checkpoints_(checkpoints) {}
  // Waits for the one in flight; that it failed is a line in the log.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // REQUIRES: none is in flight: the last Ended(true) has returned.
  void Begin(Checkpoints::Kind kind, const CheckpointState& state,
             const policy_model::Weights& weights, Optimizer& optimizer,
             std::span<const NamedModel> models);
  // How long one took that has ended since the last call; `wait`: for the one in flight, too.
  // nullopt: there is none. Throws what it failed with, once.
  std::optional<double> Ended(bool wait);
  bool busy() const { return thread_.joinable(); }

 private:
  Checkpoints& checkpoints_;
  std::map<std::string, CheckpointCopy> copies_;  // by model; "": the policy
  std::thread thread_;
  std::atomic<bool> done_{false};  // the thread's last word
  std::exception_ptr failed_;      // the thread's until it is joined, as seconds_
  double seconds_ = 0;
};

}  // namespace plumb::learner
