// What a run shows and leaves behind: progress, metrics, samples, summary.
//
// Purpose: turns the learner's hooks into metrics.jsonl, TensorBoard events, a Prometheus endpoint,
// what a tracker is told, samples.jsonl, the live progress line and summary.json. Lives beside the
// learner. Thread safety: the learner's thread only. Errors: a full disk ends the run (kNoSpace);
// nothing is dropped silently.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "common/base/metrics/metrics.h"
#include "common/base/metrics/tensorboard.h"
#include "learner/loop/learner_loop.h"
#include "run/report/busy_line.h"
#include "run/report/progress.h"
#include "run/report/sample_log.h"
#include "run/roles/carried_counters.h"
#include "run/roles/ending/run_summary.h"
#include "run/roles/follow/metrics_follower.h"
#include "run/roles/roles.h"
#include "run/roles/time_plan.h"
#include "run/session/session.h"

namespace plumb::run {

class Observer {
 public:
  Observer(const Session& session, const RunOptions& options);

  // Who has the texts of prompts that a batch only names; asked on the learner's thread. While it
  // cannot be reached, a sample goes without its ground truth.
  void FindPromptsBy(std::function<Prompt(const PromptLease&)> find) {
    find_prompt_ = std::move(find);
  }
  learner::LearnerHooks Hooks();
  void Note(const std::string& line);
  // A sign of life while answers are waited for.
  void Waiting(const std::string& text) {
    if (Progress* shown = Shown()) shown->Waiting(text);
  }
  // Work begins that says nothing itself until it is done: signs of life are given for it, until
  // something is shown. `expected`: seconds; 0: nobody knows.
  void Doing(const std::string& work, double expected = 0);
  // The update of `step` (0-based) begins.
  void Updating(int64_t step);
  // What a step is expected to take, said; nullopt: nobody knows.
  void Expect(const std::optional<StepExpectation>& step);
  // The next step is `step` (0-based), where that is not the first.
  void GoesOnAt(int64_t step) { next_step_ = step; }
  // Of the run's plan, whether anybody is shown anything.
  bool shows() const { return progress_ != nullptr; }
  // Before the first step of this life, which is `step`: totals go on from the step before it.
  void BeginCounters(int64_t step, const std::map<std::string, int64_t>& now);
  // AddCounterMetrics, and which of them only rise for whoever scrapes them.
  void AddCounters(std::map<std::string, int64_t> counters, std::map<std::string, double>& metrics);
  // What became of the rows of the run's data, as RowCounts names it; for the end.
  void CountRows(const std::map<std::string, int64_t>& rows) {
    rows_.insert(rows.begin(), rows.end());
  }
  // Says what was left out on the way, writes summary.json and report.html.
  void Finish(RunSummary summary);

 private:
  void BeginLife();
  // What is shown now ends the signs of life. nullptr: --quiet.
  Progress* Shown() {
    if (busy_) busy_->End();
    return progress_.get();
  }
  void SftStep(const learner::SftStep& step);
  void Step(int64_t step, std::map<std::string, double>& metrics);
  void Batch(int64_t step, std::span<const TrajectoryGroup> groups);
  void ShowSamples(int64_t step);
  void Evaluated(const learner::EvalResult& result, std::span<const TrajectoryGroup> groups);
  Prompt PromptOf(const PromptLease& lease) const;  // empty: it could not be asked for
  std::optional<std::string> GroundTruth(const PromptLease& lease) const;
  void StartTraining(int64_t first_step);
  void EndTensorBoard(const learner::LearnerResult& result);
  void Saving(const std::string& what, int64_t bytes);
  void WriteSample(int64_t step, const TrajectoryGroup& group, const Trajectory& trajectory,
                   const std::optional<std::string>& truth);
  void CheckFolder() const;  // still the run's own; throws kConflict

  const Session& session_;
  const RunOptions options_;
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<BusyLine> busy_;  // with it; ends first
  Metrics metrics_;
  PrometheusSink* prometheus_ = nullptr;    // one of its sinks
  TensorBoardSink* tensorboard_ = nullptr;  // another one
  std::unique_ptr<MetricsFollower> follower_;
  std::unique_ptr<SampleLog> samples_;
  std::function<Prompt(const PromptLease&)> find_prompt_;
  std::map<std::string, int64_t> rows_;
  CarriedCounters carried_;
  bool begun_ = false, started_ = false;
  std::string doing_ = "the end of this update";  // what a signal would have to wait for
  int64_t peak_bytes_ = 0;
  int64_t next_step_ = 0;
  // Of the last update (before the first as expected) and evaluation; 0: not known.
  double update_s_ = 0, evaluation_s_ = 0;
};

// replay/* and dropped/* of a table's counters as metrics.
void AddCounterMetrics(const std::map<std::string, int64_t>& counters,
                       std::map<std::string, double>& metrics);
void AddRolloutCounters(const actor::RolloutCounters& rollout, const actor::EngineCounters& engine,
                        std::map<std::string, int64_t>& counters);

void AddEpisodeCounters(const actor::EpisodeCounters& episodes,
                        std::map<std::string, int64_t>& counters);

void AddAgentCounters(const actor::AgentCounters& agents, std::map<std::string, int64_t>& counters);

// The weights version 0 starts from: loaded from model.path or initialised from the seed, with the
// recipe's adapter.
policy_model::Weights MakeWeights(const Session& session);
// The same sets, to be filled from elsewhere.
policy_model::Weights EmptyWeights(const Session& session, const Stream& stream);
// Without memory: what a plan is made of.
policy_model::Weights PlannedWeights(const configs::Config& config,
                                     const policy_model::ModelShape& shape, const Stream& stream);

// What tells runs apart in TensorBoard's table: the options that differ from their defaults, and a
// few that everybody looks for.
HyperParameters TellingOptions(const configs::Config& config);

}  // namespace plumb::run
