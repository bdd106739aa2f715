// A process' life of a run over batches that are made here; what tests of the learner's loop share.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "configs/batch_ramp.h"
#include "learner/loop/learner_loop.h"
#include "tests/learner/loop/short_run.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {

using plumb::testing::TempFolder;

inline bool HasLine(const std::vector<std::string>& lines, const std::string& piece) {
  for (const std::string& line : lines) {
    if (line.find(piece) != std::string::npos) return true;
  }
  return false;
}

// A process' life of a run: weights from the seed, a loop, batches of which each is a function of
// its step.
struct Life : BatchSource, WeightSink {
  const configs::Config config;
  policy_model::Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  policy_model::Transformer transformer{TinyShape(), Device::kCpu, DType::kFloat32};
  TrainStep train{transformer, 64};
  Checkpoints checkpoints;
  const std::vector<Demonstration> demonstrations = RandomDemonstrations(30, 1),
                                   heldout = RandomDemonstrations(10, 2);
  LearnerHooks hooks;
  std::vector<std::string> said;
  std::vector<int64_t> lines;                 // steps whose metrics were written
  std::function<void(int64_t step)> on_next;  // may throw
  std::function<void(int64_t version)> on_evaluate, on_publish;
  std::function<double(int64_t step, double reward)> reward = [](int64_t, double r) { return r; };
  // share of the held-out answers that are solved; empty: as they come
  std::function<double(int64_t version)> solved;
  int64_t scores_until = 1000;  // no answer has a score from this step on
  bool stop = false;

  Life(const configs::Config& c, const std::string& folder)
      : config(c), checkpoints(folder, 2, "") {
    policy_model::SetThreads(1);  // a child that is forked here has no other, and bits are compared
                                  // with those of its parent
    weights.Initialise(3, 0.2);
    hooks.phase = [this](const std::string& name) { said.push_back(name); };
    hooks.step = [this](int64_t step, std::map<std::string, double>&) { lines.push_back(step); };
    hooks.stop = [this] { return stop; };
  }
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline) override {
    if (on_next) on_next(step);
    auto groups = RandomGroups(static_cast<int>(configs::TrainBatches(config).Of(step)), 4,
                               static_cast<uint64_t>(step) + 9, train, weights, step);
    for (TrajectoryGroup& group : groups) {
      for (Trajectory& t : group.trajectories) {
        t.reward = reward(step, t.reward);
        t.scored = step < scores_until;
      }
    }
    return groups;
  }
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int, Deadline) override {
    if (on_evaluate) on_evaluate(version);
    auto groups = RandomGroups(1, 2, 5, train, weights, version);
    if (!solved) return groups;
    for (TrajectoryGroup& group : groups) {
      const double all = static_cast<double>(group.trajectories.size());
      for (size_t i = 0; i < group.trajectories.size(); ++i) {
        Trajectory& t = group.trajectories[i];
        t.scored = true;
        t.reward = static_cast<double>(i) < solved(version) * all ? 1 : 0;
        t.rewards = {{.name = "correct", .value = t.reward}};
      }
    }
    return groups;
  }
  void Finish() override {}
  void Publish(const PolicyVersion& version, std::span<const WeightSet>) override {
    if (on_publish) on_publish(version.version);
  }
  LearnerResult Run(bool resume) {
    return LearnerLoop(config, weights, *this, *this, checkpoints, demonstrations, heldout, hooks)
        .Run(resume);
  }
  int64_t NewestStep() const {
    const auto found = checkpoints.FindNewest();
    return found ? found->state.step : -1;
  }
};

inline LearnerResult Unbroken(const configs::Config& config) {
  const TempFolder folder;
  return Life(config, folder / "c").Run(false);
}

}  // namespace plumb::learner
