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
#include "run/report/progress.h"
#include "run/report/sample_log.h"
#include "run/roles/carried_counters.h"
#include "run/roles/follow/metrics_follower.h"
#include "run/roles/roles.h"
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
    if (progress_) progress_->Waiting(text);
  }
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

// What an evaluation found, in the words of the algorithm: "accuracy 0.500, margin 0.1, ... (8
// pairs)".
std::string HeldOutText(const configs::Config& config, const learner::EvalResult& result);
// What eval.bar is held against: the share solved or ranked right; of demonstrations, of which
// nothing is solved, 1 / perplexity.
double BarValue(const learner::EvalResult& result);
// The same in words: "pass@1".
std::string BarName(const configs::Config& config);

// What was dropped and what has no score, on one line, from a run's counters.
std::string LossLine(const std::map<std::string, int64_t>& counters);
// "equal rewards: 41.3 % of 128 groups, which had nothing to tell"; empty: no group had a score, or
// answers are not compared within groups.
std::string EqualLine(const learner::RewardTally& rewards);

// A life without a step of its own has nothing to add to the summary of the life that ended the run
// (`before`, a text; "" or damaged: none): that one counted what was lost and how long it took.
bool SaysMore(const std::string& before, const RunSummary& summary);

// summary.json as text.
std::string SummaryJson(const RunSummary& summary);

}  // namespace plumb::run
