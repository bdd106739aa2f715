#include "run/roles/roles.h"

#include <algorithm>
#include <thread>

#include "common/base/error.h"
#include "configs/checks/actor_device.h"
#include "configs/pattern_number.h"
#include "policy_model/families/tensor_share.h"
#include "run/roles/observer.h"
#include "run/roles/run_memory.h"

namespace plumb::run {
namespace {

constexpr int64_t kNeverMs = int64_t{1} << 50;  // milliseconds; thousands of years
constexpr int64_t kRenewalsALease = 5;

}  // namespace

replay::PlannerOptions PlannerOptionsOf(const configs::Config& config) {
  const configs::ReplayConfig& r = config.replay;
  return {.prompts = r.prompts,
          .groups_per_step = r.groups_per_step,
          .sampler = {.kind = r.sampler,
                      .seed = config.run.seed,
                      .alpha = r.alpha,
                      .easiest = r.easiest,
                      .ramp = r.ramp,
                      .floor = r.floor},
          .remover = {.max_steps = r.max_age_steps,
                      .max_times_sampled = r.max_times_sampled,
                      .max_groups = r.max_groups,
                      .evict = r.evict},
          .limiter = {.samples_per_insert = r.samples_per_insert,
                      .min_groups = r.min_groups,
                      .max_staleness = r.max_staleness},
          .stratum = r.stratum,
          .difficulty = r.difficulty,
          .success_part = config.eval.success_part,
          .history_steps = r.history_steps};
}

replay::TableOptions TableOptionsOf(const configs::Config& config) {
  replay::TableOptions options;
  options.seed = config.run.seed;
  options.shuffle = config.data.shuffle;
  options.steps = config.run.steps;
  options.prompts_per_step = config.rollout.prompts_per_step;
  options.ramp_steps = config.optimizer.ramp_steps;
  options.ramp_start = config.optimizer.ramp_start;
  options.samples_per_prompt = static_cast<int32_t>(config.rollout.samples_per_prompt);
  options.sync = config.run.schedule == configs::Schedule::kSync;
  options.max_staleness = config.run.max_staleness;
  options.eval_prompts =
      config.data.eval_prompts > 0 ? static_cast<uint64_t>(config.data.eval_prompts) : 0;
  // Where roles are threads, the actor cannot be lost without the run, and its leases never run
  // out: a second answer to one would be sampled by weights that the learner changes in place. A
  // process that hangs is out of the game before the run is.
  const bool threads = config.run.roles == configs::Roles::kLocal;
  options.lease_timeout_ms =
      threads ? kNeverMs : std::max<int64_t>(1, StallTime(config).count() / 2);
  // Of a cluster as many as have joined (ReplayTable::ShareAmong).
  options.actors = config.run.roles == configs::Roles::kProcesses ? config.run.actors : 1;
  options.planner = PlannerOptionsOf(config);
  options.refill_rounds = static_cast<uint32_t>(config.algorithm.refill_rounds);
  options.branches = config.environment.kind == configs::EnvironmentKind::kAgent;
  options.unscored = config.reward.on_failure;
  return options;
}

namespace {

kernels::KvFormat KvFormatOf(configs::KvType type) {
  switch (type) {
    case configs::KvType::kModel: break;
    case configs::KvType::kInt8: return kernels::KvFormat::kInt8;
    case configs::KvType::kFp8: return kernels::KvFormat::kFp8;
    case configs::KvType::kInt4: return kernels::KvFormat::kInt4;
  }
  return kernels::KvFormat::kModel;
}

}  // namespace

actor::EngineOptions EngineOptionsOf(const configs::Config& config,
                                     const policy_model::ModelShape& shape) {
  return {.max_batch = static_cast<int32_t>(config.rollout.max_batch),
          .page_tokens = static_cast<int32_t>(config.rollout.page_tokens),
          .kv_budget_mb = config.rollout.kv_budget_mb,
          .kv_format = KvFormatOf(config.rollout.kv_type),
          .prefill_tokens = static_cast<int32_t>(config.rollout.prefill_tokens),
          .max_new_tokens = static_cast<int32_t>(config.rollout.max_new_tokens),
          .sampling = {.temperature = static_cast<float>(config.rollout.temperature),
                       .top_k = static_cast<int32_t>(config.rollout.top_k),
                       .top_p = static_cast<float>(config.rollout.top_p),
                       .min_p = static_cast<float>(config.rollout.min_p),
                       .seed = config.run.seed},
          .stop = config.rollout.stop,
          .eos = shape.eos_tokens,
          .record_kept = true,
          .record_experts = config.rollout.replay_experts,
          .share_prefixes = config.rollout.share_prefixes,
          // An agent's next conversation often begins with what was said in one before.
          .share_answers = config.rollout.share_prefixes &&
                           config.environment.kind == configs::EnvironmentKind::kAgent,
          .longest =
              static_cast<int32_t>(config.data.max_prompt_tokens + config.rollout.max_new_tokens),
          .turns = config.environment.kind != configs::EnvironmentKind::kNone,
          .recompute_after_update =
              config.rollout.kv_after_update == configs::KvAfterUpdate::kRecompute,
          .tasks = static_cast<int32_t>(config.policy.tasks.size()),
          .task_tokens = static_cast<int32_t>(config.policy.task_tokens)};
}

actor::RolloutOptions RolloutOptionsOf(const Session& session, const std::string& actor) {
  const configs::Config& config = session.config();
  actor::RolloutOptions options;
  options.run_id = session.run_id();
  options.actor = actor;
  options.renew_ms = static_cast<int32_t>(
      std::clamp<int64_t>(TableOptionsOf(config).lease_timeout_ms / kRenewalsALease, 1, 30'000));
  options.group_size_hint = static_cast<int32_t>(config.rollout.samples_per_prompt);
  options.engine = EngineOptionsOf(config, session.shape());
  options.episodes = {.max_turns = static_cast<int32_t>(config.environment.max_turns),
                      .reply_tokens = static_cast<int32_t>(config.environment.reply_tokens),
                      .max_new_tokens = static_cast<int32_t>(config.rollout.max_new_tokens),
                      .episode_time = std::chrono::milliseconds(static_cast<int64_t>(
                          std::min(config.environment.episode_seconds, 1e9) * 1000)),
                      .renders_text = session.Renders(/*messages=*/false),
                      .eos = session.shape().eos_tokens};
  options.agents = {.max_turns = static_cast<int32_t>(config.environment.max_turns),
                    .max_prompt_tokens = static_cast<int32_t>(config.data.max_prompt_tokens),
                    .max_new_tokens = static_cast<int32_t>(config.rollout.max_new_tokens),
                    .max_positions = static_cast<int32_t>(session.shape().max_positions)};
  options.greedy_last = config.algorithm.advantage == configs::Advantage::kGreedy;
  return options;
}

std::chrono::milliseconds StallTime(const configs::Config& config) {
  return std::chrono::milliseconds(static_cast<int64_t>(config.run.stall_seconds * 1000));
}

ThreadShares ThreadSharesOf(const configs::Config& config, int ranks_here) {
  const bool processes = config.run.roles == configs::Roles::kProcesses,
             sync = config.run.schedule == configs::Schedule::kSync;
  const auto given = static_cast<int>(config.run.threads);
  const bool cluster = config.run.roles == configs::Roles::kCluster;
  if (given > 0 && (processes || cluster || sync)) return {.learner = given, .actor = given};
  const int all =
      given > 0 ? given : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  // Each has a machine to itself.
  if (cluster) return {.learner = std::max(1, all / ranks_here), .actor = all};
  const int actors = processes ? static_cast<int>(config.run.actors * config.rollout.tp) : 1;
  if (sync) return {.learner = std::max(1, all / ranks_here), .actor = std::max(1, all / actors)};
  return {.learner = std::max(1, (all - all / 2) / ranks_here),
          .actor = std::max(1, all / 2 / actors)};
}

void CheckActors(const Session& session, int ranks_here) {
  const configs::Config& config = session.config();
  const int64_t tp = config.rollout.tp;
  if (tp > 1)
    policy_model::ShareOf(session.shape(), 0, static_cast<int>(tp), "rollout.tp");  // or throws
  if (config.rollout.device.empty()) return;
  const int64_t actors = config.run.roles == configs::Roles::kProcesses ? config.run.actors : 1;
  for (int64_t i = 0; i < actors * tp; ++i) {
    const Device device = configs::ActorDevice(config, ranks_here, i / tp, i % tp);
    kernels::CheckDevice(device, "rollout.device = \"" + config.rollout.device + "\", actor " +
                                     std::to_string(i / tp + 1) + " of " + std::to_string(actors) +
                                     (tp > 1 ? ", process " + std::to_string(i % tp + 1) +
                                                   " of rollout.tp = " + std::to_string(tp)
                                             : ""));
  }
  const auto memory = PlanActors(session, ranks_here);
  if (memory) memory->Check();
}

int64_t KeepFromStep(const configs::Config& config, int64_t oldest_step) {
  if (config.replay.keep_steps < 0) return 0;
  return std::max<int64_t>(
      0, oldest_step - std::max(config.replay.keep_steps,
                                replay::StepPlanner::StepsToKeep(PlannerOptionsOf(config))));
}

std::unique_ptr<replay::Store> OpenStore(const Session& session) {
  return replay::Store::Open(session.folder().store(), {.run_id = session.run_id()});
}

std::map<std::string, int64_t> ImportPrompts(const Session& session, replay::Store& store,
                                             const std::function<void(const std::string&)>& note,
                                             std::atomic<int64_t>* rows) {
  PromptData prompts = LoadPrompts(session, rows);
  CheckTruths(session.config(), prompts);
  for (const std::string& line : prompts.notes) note(line);
  store.PutPrompts(replay::kTrainDataset, prompts.train);
  if (!prompts.eval.empty()) store.PutPrompts(replay::kEvalDataset, prompts.eval);
  return std::move(prompts.rows);
}

namespace {

void AddAdapter(const configs::Config& config, policy_model::Weights& weights) {
  const configs::PolicyConfig& policy = config.policy;
  if (policy.adapter == configs::Adapter::kNone) return;
  policy_model::AdapterSpec spec{.rank = policy.rank,
                                 .alpha = policy.alpha,
                                 .rslora = policy.rslora,
                                 .dropout = policy.dropout,
                                 .adapters = policy.adapters,
                                 .tasks = policy.tasks,
                                 .task_tokens = policy.task_tokens};
  policy_model::SetTargets(policy.targets, spec);
  for (const auto& [pattern, rank] :
       configs::ReadPatternNumbers(policy.rank_pattern, "policy.rank_pattern"))
    spec.rank_pattern.emplace_back(pattern, static_cast<int64_t>(rank));
  spec.alpha_pattern = configs::ReadPatternNumbers(policy.alpha_pattern, "policy.alpha_pattern");
  weights.AddAdapter(spec, config.run.seed);
}

}  // namespace

policy_model::Weights EmptyWeights(const Session& session, const Stream& stream) {
  policy_model::Weights weights(session.shape(), stream, session.dtype());
  AddAdapter(session.config(), weights);
  return weights;
}

policy_model::Weights PlannedWeights(const configs::Config& config,
                                     const policy_model::ModelShape& shape, const Stream& stream) {
  auto weights = policy_model::Weights::WithoutMemory(shape, stream, config.model.dtype);
  AddAdapter(config, weights);
  return weights;
}

policy_model::Weights MakeWeights(const Session& session) {
  policy_model::Weights weights(session.shape(), session.stream(), session.dtype());
  const auto& model = session.config().model;
  if (model.path.empty()) weights.Initialise(session.config().run.seed, model.init_std);
  else weights.Load(model.path);
  AddAdapter(session.config(), weights);
  return weights;
}

}  // namespace plumb::run
