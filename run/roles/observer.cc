#include "run/roles/observer.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/size_text.h"
#include "common/record/task_tokens.h"
#include "common/text/columns.h"
#include "configs/batch_ramp.h"
#include "kernels/device/device_memory.h"
#include "run/report/recipe_values.h"
#include "run/report/report.h"
#include "run/report/sample_text.h"
#include "run/roles/learner_ports.h"
#include "run/session/built.h"
#include "run/session/interrupt.h"
#include "run/session/newest_checkpoint.h"
#include "run/session/recipe/equal_scores.h"
#include "run/session/recipe/map_advice.h"
#include "run/session/row_counts.h"

namespace plumb::run {
namespace {

constexpr size_t kMaxSummaryBytes = 16 << 20;

using Json = nlohmann::ordered_json;

constexpr std::chrono::seconds kFirstSign{10}, kNextSign{30}, kTick{1};

// Of this process since it began.
int64_t PeakResidentBytes() {
  rusage usage{};
  PLUMB_CHECK(getrusage(RUSAGE_SELF, &usage) == 0, "getrusage");
  return int64_t{usage.ru_maxrss} * 1024;
}

double NowSeconds() { return static_cast<double>(RealClock().WallMs()) / 1000.0; }

// Of each step, as RunPlan asks for it.
std::function<double(int64_t)> ShareOfABatch(const configs::Config& config) {
  if (config.optimizer.ramp_steps == 0) return nullptr;
  return [batches = configs::TrainBatches(config)](int64_t step) {
    return static_cast<double>(batches.Of(step)) / static_cast<double>(batches.batch());
  };
}

}  // namespace

Observer::Observer(const Session& session, const RunOptions& options)
    : session_(session), options_(options) {
  MarkWhenStopped(session.folder().path);
  AdviseWhenStopped(HowToGoOn(session.folder().path));
  if (!options.quiet) {
    const configs::Config& c = session.config();
    progress_ = std::make_unique<Progress>(RunPlan{.steps = c.run.steps,
                                                   .checkpoint_every = c.run.checkpoint_every,
                                                   .eval_every = c.eval.every,
                                                   .share = ShareOfABatch(c)},
                                           isatty(STDOUT_FILENO) != 0, stdout);
    // A terminal's line is drawn again each second, as a clock.
    busy_ =
        std::make_unique<BusyLine>([this](const std::string& text) { progress_->Waiting(text); },
                                   kFirstSign, isatty(STDOUT_FILENO) != 0 ? kTick : kNextSign);
  }
  const configs::Follow to = session.config().metrics.follow;
  if (to != configs::Follow::kNone)
    follower_ = std::make_unique<MetricsFollower>(to, session.folder());
  // taken here: a port in use is said before the warm start
  const int64_t port = session.config().metrics.prometheus_port;
  if (port > 0) {
    const std::string name = std::filesystem::path(session.folder().path).filename();
    auto sink = MakePrometheusSink(static_cast<int>(port), {{"run", name}, {"role", "learner"}},
                                   {{"version", BuiltVersion()}});
    prometheus_ = sink.get();
    metrics_.AddSink(std::move(sink));
    Note("metrics: http://127.0.0.1:" + std::to_string(prometheus_->port()) + "/metrics");
  }
}

void Observer::BeginCounters(int64_t step, const std::map<std::string, int64_t>& now) {
  carried_.Begin(LastJsonlValues(session_.folder().metrics(), step), now);
}

void Observer::AddCounters(std::map<std::string, int64_t> counters,
                           std::map<std::string, double>& metrics) {
  carried_.Apply(counters);
  std::map<std::string, double> totals;
  AddCounterMetrics(counters, totals);
  if (prometheus_ != nullptr) {
    std::set<std::string> names;
    for (const auto& [name, count] : counters) {
      if (IsTotal(name)) names.insert(CounterMetric(name));
    }
    prometheus_->CountersAre(std::move(names));
  }
  for (const auto& [name, total] : totals) metrics[name] = total;
}

void Observer::Note(const std::string& text) {
  const std::string line = PrintableLines(MapAdviceBySet(text));  // a run has a recipe
  LogInfo(line);
  if (Progress* shown = Shown()) shown->Line(line);
}

void Observer::Doing(const std::string& work, double expected) {
  if (busy_) busy_->Begin(work, expected);
}

void Observer::Updating(int64_t step) {
  next_step_ = step;
  Doing("step " + std::to_string(step + 1) + ": the update is computed", update_s_);
}

void Observer::Expect(const std::optional<StepExpectation>& step) {
  if (!step) return;
  Note(step->line);
  update_s_ = step->time.train;
}

learner::LearnerHooks Observer::Hooks() {
  learner::LearnerHooks hooks;
  const bool offline = configs::IsOffline(session_.config());
  hooks.phase = [this, offline](const std::string& name) {
    doing_ =
        name.starts_with("evaluating") ? "the end of the evaluation" : "the end of this update";
    NowBusy(Busy::kUpdating, doing_);
    (progress_ || !name.starts_with("warning: ") ? LogInfo : LogWarning)(name);
    if (Progress* shown = Shown()) shown->Phase(name);
    // Where answers are waited for, that says so itself.
    if (name == "warm start") Doing(name + ": its first update is computed");
    else if (offline && name.starts_with("evaluating")) Doing(name, evaluation_s_);
  };
  hooks.sft_step = [this](const learner::SftStep& step) { SftStep(step); };
  hooks.step = [this](int64_t step, std::map<std::string, double>& metrics) {
    Step(step, metrics);
  };
  hooks.batch = [this](int64_t step, std::span<const TrajectoryGroup> groups) {
    Batch(step, groups);
    ShowSamples(step);
  };
  hooks.evaluated = [this](const learner::EvalResult& result,
                           std::span<const TrajectoryGroup> groups) { Evaluated(result, groups); };
  hooks.plan = [this](const learner::SavePlan& plan) {
    if (progress_) progress_->time_left().Sizes(plan.Mean(), plan.last, plan.beside);
  };
  hooks.saving = [this](const std::string& what, int64_t bytes) { Saving(what, bytes); };
  hooks.saved = [this](int64_t bytes, double seconds, double waited) {
    AdviseWhenStopped(HowToGoOn(session_.folder().path));
    if (progress_) progress_->time_left().Checkpoint(bytes, seconds, waited);
  };
  hooks.evaluation_took = [this](double seconds) {
    evaluation_s_ = seconds;
    if (progress_) progress_->time_left().Evaluation(seconds);
  };
  hooks.stop = [this, offline] {
    const bool stop = options_.stop && options_.stop->load();
    if (stop) return true;
    NowBusy(Busy::kUpdating, doing_);
    if (offline) Updating(next_step_);
    return false;
  };
  return hooks;
}

void Observer::Saving(const std::string& what, int64_t bytes) {
  const std::string line = "saving " + what + " (" + SizeText(bytes) + ") ...";
  LogInfo(line);
  if (Progress* shown = Shown()) shown->Saving(line, bytes);
}

// From here on the run is more than its last summary says: nobody may take that for its end.
void Observer::BeginLife() {
  if (std::exchange(begun_, true)) return;
  CheckFolder();
  RealFileSystem().RemoveAll(session_.folder().summary());
  ReplacedRunGoes(session_.folder());
}

void Observer::SftStep(const learner::SftStep& step) {
  BeginLife();
  NowBusy(Busy::kSaving);
  if (step.heldout_loss < 0) {
    if (Progress* shown = Shown())
      shown->WarmStart(step.step + 1, session_.config().sft.steps, step.loss);
    return Doing("warm start: update " + std::to_string(step.step + 2) + " is computed");
  }
  char line[160];
  std::snprintf(line, sizeof line, "warm start %lld: loss %.4f, held-out %.4f nats a token",
                static_cast<long long>(step.step + 1), step.loss, step.heldout_loss);
  Note(line);
}

void Observer::StartTraining(int64_t first_step) {
  if (std::exchange(started_, true)) return;
  BeginLife();
  const RunFolder& folder = session_.folder();
  const auto& options = session_.config().metrics;
  metrics_.GoOnFrom(LastJsonlValues(folder.metrics(), first_step));
  metrics_.AddSink(MakeJsonlSink(folder.metrics(), first_step));
  if (follower_) follower_->Begin();
  if (options.tensorboard) {
    auto sink = MakeTensorBoardSink(folder.tensorboard());
    tensorboard_ = sink.get();
    metrics_.AddSink(std::move(sink));
    tensorboard_->BeginSession(first_step, NowSeconds(), TellingOptions(session_.config()));
  }
  samples_ = std::make_unique<SampleLog>(RealFileSystem(), folder.samples(), first_step);
}

// What this run would write into a folder that was put in its place would be another run's.
void Observer::CheckFolder() const {
  std::string id;
  try {
    id = ReadRunId(session_.folder());
  } catch (const Error&) {  // gone, or in the middle of being made anew
  }
  if (id == session_.run_id()) return;
  throw Error(ErrorCode::kConflict,
              "the run's folder was moved, removed or replaced while it went on: it ends here and "
              "writes nothing "
              "more; where the folder is now, --resume goes on",
              session_.folder().path);
}

void Observer::Step(int64_t step, std::map<std::string, double>& metrics) {
  CheckFolder();
  // What follows before the next update writes checkpoints.
  NowBusy(Busy::kSaving);
  doing_ = "the end of step " + std::to_string(step + 2);  // as the progress line counts the next
  StartTraining(step);
  for (const auto& [name, value] : metrics) metrics_.Set(name, value);
  const Device device = session_.stream().device();
  peak_bytes_ = std::max(
      peak_bytes_, device.is_cuda() ? kernels::DeviceBytesInUse(device) : PeakResidentBytes());
  metrics_.Set("perf/peak_memory_gb", static_cast<double>(peak_bytes_) / 1e9);
  metrics_.Step(step);
  if (follower_) {
    if (const std::string gone = follower_->Look(); !gone.empty()) Note(gone);
  }
  next_step_ = step + 1;
  if (const auto took = metrics.find("time/train"); took != metrics.end()) update_s_ = took->second;
  if (Progress* shown = Shown()) shown->Step(step, metrics);
}

Prompt Observer::PromptOf(const PromptLease& lease) const {
  if (lease.prompt_sum == 0) return lease.prompt;
  PLUMB_CHECK(find_prompt_ != nullptr);
  try {
    return find_prompt_(lease);
  } catch (const Error& e) {
    if (!TryAgain(e)) throw;
    LogWarning(std::string("a prompt is missing from what is shown: ") + e.what());
    return {};
  }
}

std::optional<std::string> Observer::GroundTruth(const PromptLease& lease) const {
  const std::string truth = PromptOf(lease).ground_truth;
  return truth.empty() ? std::nullopt : std::optional(truth);
}

void Observer::Batch(int64_t step, std::span<const TrajectoryGroup> groups) {
  StartTraining(step);
  const configs::Config& config = session_.config();
  if (step == 0) {
    const bool messages = !groups.empty() && (!config.data.system_prompt.empty() ||
                                              !PromptOf(groups.front().lease).messages.empty());
    for (const std::string& line : PartsWithEqualScores(config, groups, messages))
      Note("first step: " + line);
  }
  const int64_t every = config.metrics.samples_every;
  const bool last = step + 1 == config.run.steps;  // what the policy came to
  if (every <= 0 || (step % every != 0 && !last)) return;
  if (config.metrics.samples == configs::SampleLog::kAll) {
    for (const TrajectoryGroup& group : groups) {
      const auto truth = GroundTruth(group.lease);
      for (const Trajectory& t : group.trajectories) WriteSample(step, group, t, truth);
    }
    return;
  }
  // One prompt a time, its best and its worst answer: what moved the policy. Where no answer has a
  // score, it shows why.
  const auto scored = [](const TrajectoryGroup& g) {
    return std::any_of(g.trajectories.begin(), g.trajectories.end(),
                       [](const Trajectory& t) { return t.scored; });
  };
  auto group = std::find_if(groups.begin(), groups.end(), scored);
  if (group == groups.end())
    group = std::find_if(groups.begin(), groups.end(),
                         [](const auto& g) { return !g.trajectories.empty(); });
  if (group == groups.end()) return;
  const auto [worst, best] =
      std::minmax_element(group->trajectories.begin(), group->trajectories.end(),
                          [](const Trajectory& a, const Trajectory& b) {
                            return std::pair(a.scored, a.scored ? a.reward : 0.0) <
                                   std::pair(b.scored, b.scored ? b.reward : 0.0);
                          });
  const auto truth = GroundTruth(group->lease);
  WriteSample(step, *group, *best, truth);
  if (best != worst) WriteSample(step, *group, *worst, truth);
}

// What each side said, with what the environment made of a turn.
static Json TurnsJson(const Tokenizer& tokenizer, const Trajectory& t) {
  Json turns = Json::array();
  auto note = t.turns.begin();
  for (size_t i = 0; i < t.segments.size(); ++i) {
    const Segment& s = t.segments[i];
    if (s.origin == Origin::kPrompt) continue;
    const auto tokens = std::span(t.tokens).subspan(static_cast<size_t>(s.begin),
                                                    static_cast<size_t>(s.end - s.begin));
    Json turn = {{"by", s.origin == Origin::kPolicy ? "policy" : "environment"},
                 {"text", tokenizer.Decode(tokens, /*skip_special=*/false)}};
    if (note != t.turns.end() && static_cast<size_t>(note->segment) == i) {
      if (note->reward) turn["reward"] = *note->reward;
      if (note->failed_call) turn["failed"] = true;
      ++note;
    }
    turns.push_back(std::move(turn));
  }
  return turns;
}

void Observer::WriteSample(int64_t step, const TrajectoryGroup& group, const Trajectory& t,
                           const std::optional<std::string>& truth) {
  Json parts = Json::object();
  for (const auto& part : t.rewards) {
    if (part.scope == RewardScope::kTrajectory) parts[part.name] = part.value;
  }
  const auto prompt_tokens = std::span(t.tokens)
                                 .first(static_cast<size_t>(t.prompt_length()))
                                 .subspan(LeadingTaskTokens(t.tokens));
  Json entry = {{"step", step},
                {"lease_id", group.lease.lease_id},
                {"sample", t.sample},
                {"prompt", session_.tokenizer().Decode(prompt_tokens)},
                {"completion", t.completion},
                {"reward", t.scored ? Json(t.reward) : Json(nullptr)},
                {"parts", parts},
                {"finish", t.finish == FinishReason::kStop     ? "stop"
                           : t.finish == FinishReason::kLength ? "length"
                                                               : "aborted"},
                {"ground_truth", truth ? Json(*truth) : Json(nullptr)}};
  if (const int32_t task = TaskOf(t.tokens); task >= 0)
    entry["task"] = session_.config().policy.tasks.at(static_cast<size_t>(task));
  if (!t.turns.empty()) entry["turns"] = TurnsJson(session_.tokenizer(), t);
  if (!t.scored) entry["unscored_reason"] = t.unscored_reason;
  samples_->Append(entry.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

// In TensorBoard, the first prompt of those that samples.jsonl has got of this step.
void Observer::ShowSamples(int64_t step) {
  std::istringstream lines(samples_->TakeNew());
  if (!tensorboard_) return;
  std::vector<Json> answers;
  for (std::string line; std::getline(lines, line);) {
    Json answer = Json::parse(line);
    if (!answers.empty() && answers.front()["lease_id"] != answer["lease_id"]) break;
    answers.push_back(std::move(answer));
  }
  if (!answers.empty()) tensorboard_->Text(step, NowSeconds(), "samples", SamplesMarkdown(answers));
}

void Observer::Evaluated(const learner::EvalResult& result, std::span<const TrajectoryGroup>) {
  Note("held-out, version " + std::to_string(result.version) + ": " +
       HeldOutText(session_.config(), result));
  if (result.unscored == 0) return;
  char share[32];
  std::snprintf(share, sizeof share, "%.1f %%",
                100 * static_cast<double>(result.aborted) / static_cast<double>(result.answers));
  Note("  " + std::to_string(result.unscored) + " of them have no score" +
       (result.measured() ? " and count as not solved" : "") +
       (result.aborted > 0
            ? ", " + std::to_string(result.aborted) + " (" + share + ") were never generated"
            : "") +
       (result.reason.empty() ? "" : "; the first: " + result.reason));
}

void Observer::Finish(RunSummary summary) {
  carried_.Apply(summary.counters);
  summary.counters.insert(rows_.begin(), rows_.end());
  if (const std::string rows = RowLine(summary.counters); !rows.empty()) Note(rows);
  if (!configs::IsOffline(session_.config())) {
    Note(LossLine(summary.counters));
    if (const std::string equal = EqualLine(summary.learner.rewards); !equal.empty()) Note(equal);
  }
  if (follower_) {
    if (const std::string untold = follower_->Finish(); !untold.empty()) Note(untold);
  }
  busy_.reset();
  progress_.reset();
  EndTensorBoard(summary.learner);
  const std::string path = session_.folder().summary();
  const std::string before =
      RealFileSystem().Exists(path) ? RealFileSystem().ReadFile(path, kMaxSummaryBytes) : "";
  if (!SaysMore(before, summary)) RealFileSystem().WriteFileAtomic(path, SummaryJson(summary));
  WriteReport(session_.folder().path, session_.folder().report());
}

// The last evaluation follows the last step, so no step's line has it; the table of runs shows the
// last value of each metric.
void Observer::EndTensorBoard(const learner::LearnerResult& result) {
  if (!tensorboard_ || result.stopped_early) return;
  const int64_t last = std::max<int64_t>(0, result.steps - 1);
  if (result.after) {
    const learner::EvalResult& after = *result.after;
    std::map<std::string, double> values;
    if (after.loss) values["eval/loss"] = *after.loss;
    if (after.perplexity) {
      values["eval/perplexity"] = *after.perplexity;
    } else if (after.measured()) {
      values["eval/accuracy"] = after.accuracy;
      if (after.loss) values["eval/margin"] = after.reward;
      if (after.reward_chosen) values["eval/reward_chosen"] = *after.reward_chosen;
      if (after.reward_rejected) values["eval/reward_rejected"] = *after.reward_rejected;
    }
    tensorboard_->Write(last, NowSeconds(), values);
  }
  tensorboard_->EndSession(last, NowSeconds());
}

HyperParameters TellingOptions(const configs::Config& config) {
  HyperParameters out = ReadRecipeValues(configs::ToToml(config));
  configs::Config none;
  none.reward.parts.resize(config.reward.parts.size());
  const RecipeValues defaults = ReadRecipeValues(configs::ToToml(none));
  static const std::set<std::string> kAlways = {"algorithm.name", "model.path",
                                                "model.dtype",    "optimizer.learning_rate",
                                                "run.seed",       "run.steps"};
  std::erase_if(out, [&](const auto& option) {
    const auto& [name, value] = option;
    if (name == "run.out" || name.starts_with("metrics.")) return true;  // not of the training
    const auto found = defaults.find(name);
    return !kAlways.contains(name) && found != defaults.end() && found->second == value;
  });
  return out;
}

void AddCounterMetrics(const std::map<std::string, int64_t>& counters,
                       std::map<std::string, double>& metrics) {
  for (const auto& [name, count] : counters)  // rows: known before; summary.json has them
    if (!name.starts_with(kRows)) metrics[CounterMetric(name)] = static_cast<double>(count);
}

void AddRolloutCounters(const actor::RolloutCounters& r, const actor::EngineCounters& e,
                        std::map<std::string, int64_t>& counters) {
  const auto add = [&](const char* of, uint64_t n) { counters[of] += static_cast<int64_t>(n); };
  add("actor/leases", r.leases), add("actor/groups_delivered", r.groups_delivered);
  add("actor/refused_prompts", r.refused_prompts), add("actor/untokenizable", r.untokenizable);
  add("actor/stale_leases", r.stale_leases), add("actor/port_retries", r.port_retries);
  add("rollout/prefix_tokens_reused", e.prefix_tokens_reused);
  add("rollout/prompt_tokens_computed", e.prefill_tokens);
  add("rollout/recomputed_tokens", e.recomputed_tokens);
}

void AddEpisodeCounters(const actor::EpisodeCounters& e, std::map<std::string, int64_t>& counters) {
  counters["environment/episodes"] += static_cast<int64_t>(e.episodes);
  counters["environment/turns"] += static_cast<int64_t>(e.turns);
  counters["environment/cut_replies"] += static_cast<int64_t>(e.cut_replies);
  counters["environment/failures"] += static_cast<int64_t>(e.failures);
  counters["environment/timeouts"] += static_cast<int64_t>(e.timeouts);
}

void AddAgentCounters(const actor::AgentCounters& a, std::map<std::string, int64_t>& counters) {
  counters["environment/branches"] += static_cast<int64_t>(a.branches);
  counters["environment/put_aside"] += static_cast<int64_t>(a.put_aside);
  counters["environment/left_calls"] += static_cast<int64_t>(a.left_calls);
  counters["environment/refused_calls"] += static_cast<int64_t>(a.refused);
}

}  // namespace plumb::run
