#include "run/roles/role_loops.h"

#include <chrono>
#include <optional>
#include <utility>

#include "common/base/log.h"
#include "environment/environments.h"
#include "replay/store/record.h"
#include "reward/models/reward_model.h"
#include "run/agents/open_agents.h"
#include "run/roles/ranked_ports.h"
#include "run/roles/role_totals.h"
#include "run/roles/sharing/actor_ranks.h"
#include "run/session/demonstration_data.h"

namespace plumb::run {
namespace {

RunMemory CheckedPlan(const Session& session) {
  RunMemory memory = PlanRun(session);
  memory.Check();
  return memory;
}

// The store with the run's prompts in it, once the observer has been told of the run's memory.
replay::Store* Filled(const Session& session, const RunMemory& memory, replay::Store* store,
                      Observer& observer) {
  observer.Note(memory.Line());
  observer.CountRows(
      ImportPrompts(session, *store, [&](const std::string& note) { observer.Note(note); }));
  return store;
}

}  // namespace

RunOptions PlannedOptions(RunOptions options, const RunMemory& memory) {
  options.recompute = memory.recompute;
  options.waits_for_checkpoints = memory.waits_for_checkpoints;
  return options;
}

RunStart::RunStart(const Session& session, const RunOptions& given)
    : memory(CheckedPlan(session)),
      options(PlannedOptions(given, memory)),
      store(OpenStore(session)),
      observer(session, options),
      table(Filled(session, memory, store.get(), observer), TableOptionsOf(session.config())),
      weights(WithPlan(memory, [&] { return MakeWeights(session); })) {}

RewardLoop::RewardLoop(const Session& session, std::string name, replay::StorePort& store,
                       size_t capacity)
    : name_(std::move(name)),
      store_(store),
      scorer_(session.config().reward, reward::WithModelParts(session.tokenizer())),
      prompts_([&store](std::span<const replay::PromptRef> refs) { return store.Prompts(refs); }) {
  line_ = std::make_unique<ScoringLine>(
      [this](FinishedGroup& group) {
        if (group.body) return ScoreSealed(group, scorer_, prompts_);
        scorer_.Score(group.group);
        return replay::ScoredBody{GroupBody::Seal(group.group), replay::ScoresOf(group.group)};
      },
      [this](std::span<const replay::ScoredBody> groups) {
        Report();
        store_.InsertMany(groups);
      },
      ScoringOptions{.side_by_side = scorer_.SideBySide(),
                     .capacity = capacity,
                     .full_disk_patience = StallTime(session.config())});
}

bool RewardLoop::Push(FinishedGroup& group, Deadline deadline, std::function<void()> done) {
  if (group.body && group.body->head().lease.prompt_sum != 0)
    prompts_.Want(replay::RefOf(group.body->head().lease));
  return line_->Push(group, deadline, std::move(done));
}

void RewardLoop::Report() {
  std::map<std::string, int64_t> counters = ToCounters({.reward_s = line_->score_seconds()});
  for (const auto& [name, count] : scorer_.Counters()) counters[name] = static_cast<int64_t>(count);
  store_.Report(name_, counters);
}

std::string RewardLoop::Summary() const {
  std::string line;
  for (const auto& [name, count] : scorer_.Counters())
    line += " " + name + "=" + std::to_string(count);
  for (const auto& [name, seconds] : scorer_.Latencies())
    line += " " + name + "=" + std::to_string(seconds) + "s";
  return line;
}

bool RunActorLoop(const Session& session, const std::string& name, const ActorEnds& ends) {
  const std::unique_ptr<EnvironmentPort> environment = environment::MakeEnvironments(
      session.config().environment, session.tokenizer(), session.chat_template(),
      session.config().reward.allow_unsandboxed);
  std::optional<Agents> agents;
  if (session.config().environment.kind == configs::EnvironmentKind::kAgent) {
    agents.emplace(session.config(), AgentSurroundings{.tokenizer = &session.tokenizer(),
                                                       .chat_template = session.chat_template(),
                                                       .eos = session.shape().eos_tokens,
                                                       .folder = session.folder().path,
                                                       .actor = name,
                                                       .host = {}});
  }
  const actor::Surroundings around{.environment = environment.get(),
                                   .agents = agents ? &agents->door() : nullptr,
                                   .whole_prompt =
                                       [&](const PromptLease& lease) {
                                         if (lease.prompt_sum == 0) return lease.prompt;
                                         const replay::PromptRef ref = replay::RefOf(lease);
                                         return ends.store.Prompts(std::span(&ref, 1)).front();
                                       },
                                   .stop = ends.stop};
  actor::RolloutOptions options = RolloutOptionsOf(session, name);
  if (ends.leading) options.share = ends.leading->engine_share();
  actor::Rollout rollout(ends.leading ? ends.leading->shape() : session.shape(), ends.stream,
                         session.dtype(), options, &ends.store, &ends.policy, &session.tokenizer(),
                         session.chat_template(), ends.sink, around);
  LogInfo("generating as " + name);
  if (const std::string& why = rollout.engine().why_not_shared();
      options.engine.share_prefixes && !why.empty())
    LogInfo("prompts do not share what they begin with: " + why);
  bool more = true;
  while (more && !ends.stop()) {
    more = rollout.Pump(After(std::chrono::milliseconds(200)));
    if (ends.leading) ends.leading->StillHere();
    const actor::EngineCounters& engine = rollout.engine().counters();
    std::map<std::string, int64_t> counters =
        ToCounters({.generate_s = engine.generate_seconds,
                    .generated_tokens = static_cast<int64_t>(engine.generated_tokens)});
    AddRolloutCounters(rollout.counters(), engine, counters);
    if (environment || agents) AddEpisodeCounters(rollout.episode_counters(), counters);
    if (agents) {
      AddAgentCounters(rollout.agent_counters(), counters);
      for (const auto& [counted, n] : agents->door().Counters()) counters[counted] += n;
    }
    if (ends.counters) {
      for (const auto& [counted, n] : ends.counters()) counters[counted] += n;
    }
    ends.store.Report(name, counters);
  }
  if (more) rollout.Stop();
  if (ends.leading) ends.leading->End();
  const auto& c = rollout.counters();
  LogInfo("stopping: " + std::to_string(c.groups_delivered) + " groups delivered, " +
          std::to_string(c.stale_leases) + " stale leases, " + std::to_string(c.refused_prompts) +
          " refused prompts, " + std::to_string(c.port_retries) + " retries");
  return !more;
}

learner::LearnerResult RunLearnerLoop(const Session& session, const RunOptions& options,
                                      Observer& observer, policy_model::Weights& weights,
                                      RingAround around, const reward::GroupScorer* scorer) {
  configs::Config config = session.config();
  config.optimizer.recompute = options.recompute;
  config.checkpoint.background &= !options.waits_for_checkpoints;
  const DemonstrationData demonstrations = LoadDemonstrations(session);
  learner::Checkpoints checkpoints(session.folder().checkpoints(), config.run.keep_checkpoints,
                                   session.tokenizer_source(), config.model.path);
  if (options.newest) checkpoints.PreferNewest();
  observer.FindPromptsBy([&store = around.store](const PromptLease& lease) {
    const replay::PromptRef ref = replay::RefOf(lease);
    return store.Prompts(std::span(&ref, 1)).front();
  });
  around.stop = [&] { return options.Stopped(); };
  around.patience = StallTime(config);
  around.waits = [&](const std::string& text) { observer.Waiting(text); };
  // The other ranks wait for what this one waits for.
  std::optional<RankedBatches> ranked;
  if (options.ranks) {
    around.stop = [&] {
      if (ranked) ranked->StillWaiting();
      return options.Stopped();
    };
  }
  LearnerPorts ports(std::move(around));
  if (options.ranks) ranked.emplace(*options.ranks, &ports, &ports);
  // Answered once the store has read its rows, and said so: what follows is said behind that.
  ports.StoreState();
  for (const std::string& note : demonstrations.notes) observer.Note(note);
  observer.CountRows(demonstrations.rows);
  learner::LearnerHooks hooks = observer.Hooks();
  RoleTimes times;
  bool stepped = false;
  // What was done before the first step belongs to none: the evaluation of version 0, and, after a
  // restart of this process alone, all that the others had done.
  const auto begin_here = [&] {
    auto counters = ports.Counters();
    times = RoleTimes(TakeRoleTotals(counters));
    return counters;
  };
  hooks.evaluated = [&, inner = hooks.evaluated](const learner::EvalResult& result,
                                                 std::span<const TrajectoryGroup> groups) {
    inner(result, groups);
    if (!stepped) begin_here();
  };
  hooks.step = [&, inner = hooks.step](int64_t step, std::map<std::string, double>& metrics) {
    auto counters = ports.Counters();
    times.AddStep(TakeRoleTotals(counters), metrics);
    stepped = true;
    observer.AddCounters(counters, metrics);
    if (scorer != nullptr) {
      for (const auto& [name, seconds] : scorer->Latencies()) metrics[name] = seconds;
    }
    inner(step, metrics);
  };
  hooks.store_state = [&] { return ports.StoreState(); };
  const auto resumed = [&](int64_t step, const std::string& then) {
    const int64_t reopened = ports.Resume(step, then);
    if (reopened > 0)
      observer.Note(std::to_string(reopened) +
                    " prompts of steps without one scored answer are answered afresh");
    observer.BeginCounters(step, begin_here());
  };
  hooks.resumed = resumed;
  hooks.anew = [&] { resumed(0, ""); };
  hooks.checkpointed = [&](int64_t oldest_step) { ports.Trim(KeepFromStep(config, oldest_step)); };
  learner::LearnerLoop loop(config, weights, ranked ? static_cast<BatchSource&>(*ranked) : ports,
                            ranked ? static_cast<WeightSink&>(*ranked) : ports, checkpoints,
                            demonstrations.train, demonstrations.heldout, hooks, options.ranks,
                            options.ranks_here);
  learner::LearnerResult result = loop.Run(options.resume);
  ShareModel(session, checkpoints, result);
  return result;
}

void ShareModel(const Session& session, const learner::Checkpoints& checkpoints,
                const learner::LearnerResult& result) {
  if (result.stopped_early || !result.saved) return;
  checkpoints.ShareModel(result.steps, session.folder().model());
}

RunSummary FinishRun(const Session& session, Observer& observer, learner::LearnerResult result,
                     std::map<std::string, int64_t> counters) {
  TakeRoleTotals(counters);
  RunSummary summary{.learner = std::move(result),
                     .wanted_steps = session.config().run.steps,
                     .counters = std::move(counters)};
  observer.Finish(summary);
  return summary;
}

}  // namespace plumb::run
