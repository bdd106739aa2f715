#include "run/roles.h"

#include <algorithm>

#include "common/error.h"
#include "run/observer.h"

namespace plumb::run {

replay::PlannerOptions PlannerOptionsOf(const configs::Config& config) {
  const configs::ReplayConfig& r = config.replay;
  return {.prompts = r.prompts,
          .groups_per_step = r.groups_per_step,
          .sampler = {.name = r.sampler, .seed = config.run.seed, .alpha = r.alpha, .easiest = r.easiest, .ramp = r.ramp, .floor = r.floor},
          .remover = {.max_steps = r.max_age_steps, .max_times_sampled = r.max_times_sampled, .max_groups = r.max_groups, .evict = r.evict},
          .limiter = {.samples_per_insert = r.samples_per_insert, .min_groups = r.min_groups, .max_staleness = r.max_staleness},
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
  options.samples_per_prompt = static_cast<int32_t>(config.rollout.samples_per_prompt);
  options.sync = config.run.schedule == "sync";
  options.max_staleness = config.run.max_staleness;
  options.eval_prompts = config.data.eval_prompts > 0 ? static_cast<uint64_t>(config.data.eval_prompts) : 0;
  options.planner = PlannerOptionsOf(config);
  options.refill_rounds = static_cast<uint32_t>(config.algorithm.refill_rounds);
  options.unscored = replay::ParseUnscored(config.reward.on_failure);
  return options;
}

actor::RolloutOptions RolloutOptionsOf(const Session& session, const std::string& actor) {
  const configs::Config& config = session.config();
  actor::RolloutOptions options;
  options.run_id = session.run_id();
  options.actor = actor;
  options.group_size_hint = static_cast<int32_t>(config.rollout.samples_per_prompt);
  options.engine = {.max_batch = static_cast<int32_t>(config.rollout.max_batch),
                    .page_tokens = static_cast<int32_t>(config.rollout.page_tokens),
                    .kv_budget_mb = config.rollout.kv_budget_mb,
                    .prefill_tokens = static_cast<int32_t>(config.rollout.prefill_tokens),
                    .max_new_tokens = static_cast<int32_t>(config.rollout.max_new_tokens),
                    .sampling = {.temperature = static_cast<float>(config.rollout.temperature),
                                 .top_k = static_cast<int32_t>(config.rollout.top_k),
                                 .top_p = static_cast<float>(config.rollout.top_p),
                                 .min_p = static_cast<float>(config.rollout.min_p),
                                 .seed = config.run.seed},
                    .stop = config.rollout.stop,
                    .eos = session.shape().eos_tokens};
  return options;
}

int64_t KeepFromStep(const configs::Config& config, int64_t oldest_step) {
  if (config.replay.keep_steps < 0) return 0;
  return std::max<int64_t>(0, oldest_step - std::max(config.replay.keep_steps, replay::StepPlanner::StepsToKeep(PlannerOptionsOf(config))));
}

std::unique_ptr<replay::Store> OpenStore(const Session& session) {
  return replay::Store::Open(session.folder().store(), {.run_id = session.run_id()});
}

policy_model::Weights MakeWeights(const Session& session) {
  policy_model::Weights weights(session.shape(), session.device(), session.dtype());
  const auto& model = session.config().model;
  if (model.path.empty()) weights.Initialise(session.config().run.seed, model.init_std);
  else weights.Load(model.path);
  return weights;
}

}  // namespace plumb::run
