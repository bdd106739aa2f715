#include "learner/update/checkpoint_writer.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/log.h"

namespace plumb::learner {
namespace {

constexpr int kNice = 10;

// The training is to keep its cores. That it cannot be asked for is no reason not to write.
void GiveWay() {
  const auto self = static_cast<id_t>(syscall(SYS_gettid));
  if (setpriority(PRIO_PROCESS, self, kNice) != 0)
    LogWarning("checkpoints are written at the priority of the training");
}

}  // namespace

CheckpointWriter::~CheckpointWriter() {
  try {
    Ended(/*wait=*/true);
  } catch (const std::exception& e) {
    LogWarning(std::string("the checkpoint that was being written could not be saved: ") +
               e.what());
  }
}

void CheckpointWriter::Begin(Checkpoints::Kind kind, const CheckpointState& state,
                             const policy_model::Weights& weights, Optimizer& optimizer,
                             std::span<const NamedModel> models) {
  PLUMB_CHECK(!busy(), "one checkpoint at a time");
  CheckpointState completed =
      Checkpoints::Complete(state, weights, optimizer, models, /*digests=*/false);
  std::vector<SavedModel> copied;
  const auto take = [&](const std::string& name, const policy_model::Weights& of,
                        Optimizer& its_optimizer) {
    CheckpointCopy& copy = copies_[name];
    copy.Take(of, its_optimizer, state.optimizer, state.moments);
    copied.push_back({.name = name, .weights = &copy.weights(), .optimizer = copy.sets()});
  };
  take("", weights, optimizer);
  for (const NamedModel& model : models) take(model.name, *model.weights, *model.optimizer);
  CRASH_POINT("checkpoint_copied");
  done_.store(false);
  failed_ = nullptr;
  thread_ = std::thread([this, kind, completed = std::move(completed), copied = std::move(copied)] {
    const auto begin = std::chrono::steady_clock::now();
    try {
      GiveWay();
      checkpoints_.Put(kind, completed, copied);
    } catch (...) {
      failed_ = std::current_exception();
    }
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    done_.store(true);
  });
}

std::optional<double> CheckpointWriter::Ended(bool wait) {
  if (!busy() || (!wait && !done_.load())) return std::nullopt;
  thread_.join();
  if (failed_) std::rethrow_exception(std::exchange(failed_, nullptr));
  return seconds_;
}

}  // namespace plumb::learner
