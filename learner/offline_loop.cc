#include "learner/offline_loop.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/crash_point.h"
#include "common/digest.h"
#include "common/error.h"
#include "common/sha256.h"
#include "learner/schedule.h"
#include "policy_model/speed.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

std::vector<std::byte> HostBytes(const policy_model::FlatBuffer& flat) {
  std::vector<std::byte> host(flat.bytes());
  flat.CopyToHost(host);
  return host;
}

std::string Sha256Of(std::initializer_list<const policy_model::FlatBuffer*> buffers) {
  Sha256 hash;
  for (const policy_model::FlatBuffer* buffer : buffers) hash.Update(HostBytes(*buffer));
  return hash.HexDigest();
}

EvalResult ToResult(const OfflineEval& e, int64_t version) {
  EvalResult out{.version = version};
  out.accuracy = e.accuracy;
  out.reward = e.margin;
  out.answers = e.examples;
  out.loss = e.loss;
  return out;
}

}  // namespace

LearnerResult RunOffline(const configs::Config& config, const OfflineOptions& options, OfflineObjective& objective,
                         policy_model::Weights& weights, Optimizer& optimizer, Checkpoints& checkpoints,
                         const LearnerHooks& hooks, bool resume) {
  const auto started = SteadyClock::now();
  const auto phase = [&](const std::string& name) {
    if (hooks.phase) hooks.phase(name);
  };
  if (objective.size() < options.batch) {
    throw Error(ErrorCode::kInvalidArgument, "a batch has " + std::to_string(options.batch) + " rows but there are only " +
                                                 std::to_string(objective.size()) + " to train on: lower it or add data");
  }
  LearnerResult result;
  double earlier_wall_s = 0;
  int64_t step = 0;
  std::optional<Checkpoints::Found> found;
  if (resume) found = checkpoints.FindNewest();
  if (found) {
    for (const auto& rejected : found->rejected) phase("skipped an unusable checkpoint: " + rejected);
    if (found->state.seed != config.run.seed) {
      throw Error(ErrorCode::kConflict, "the checkpoint was made with run.seed = " + std::to_string(found->state.seed) +
                                            ", the recipe says " + std::to_string(config.run.seed), found->path);
    }
    checkpoints.Load(*found, weights, optimizer);
    checkpoints.LoadModels(*found, objective.Models());
    objective.RestoreState(found->state.algorithm_json);
    step = found->state.step;
    earlier_wall_s = found->state.wall_s;
    result.tokens = found->state.tokens;
    const Json state = Json::parse(found->state.state_json);
    const std::string store = state.value("store", std::string());
    if (hooks.resumed && !store.empty()) hooks.resumed(step, store);
    if (state.contains("before")) {
      const Json& b = state["before"];
      result.before = ToResult({.loss = b.at("loss"), .accuracy = b.at("accuracy"), .margin = b.at("margin"),
                                .examples = b.at("examples")}, 0);
    }
    phase("resumed at step " + std::to_string(step) + " from " + found->path);
  }
  result.first_step = step;

  const auto save = [&](int64_t next_step) {
    CRASH_POINT("before_checkpoint");
    Json state = Json::object();
    if (hooks.store_state) state["store"] = hooks.store_state();
    if (result.before) {
      state["before"] = {{"loss", result.before->loss.value_or(0)}, {"accuracy", result.before->accuracy},
                         {"margin", result.before->reward}, {"examples", result.before->answers}};
    }
    result.policy = {.version = next_step, .digest = WeightDigest(HostBytes(weights.flat()))};
    checkpoints.Save({.step = next_step, .policy = result.policy, .counters = optimizer.counters(),
                      .moment_steps = optimizer.moment_steps(), .seed = config.run.seed,
                      .store_cursor = next_step * options.batch, .tokens = result.tokens,
                      .wall_s = earlier_wall_s + SecondsSince(started), .state_json = state.dump(),
                      .algorithm_json = objective.StateJson()},
                     weights, optimizer, objective.Models());
    CRASH_POINT("after_checkpoint");
  };
  const auto evaluate = [&](int64_t version) -> std::optional<EvalResult> {
    phase("evaluating version " + std::to_string(version));
    const OfflineEval e = objective.Evaluate();
    if (e.examples == 0) return std::nullopt;
    const EvalResult out = ToResult(e, version);
    if (hooks.evaluated) hooks.evaluated(out, {});
    return out;
  };

  if (step == 0 && !result.before) result.before = evaluate(0);
  if (!found) save(0);
  int64_t last_saved = step;
  phase("training");
  const double product_speed = policy_model::MeasureProductSpeed(weights.flat().device(), weights.flat().dtype());
  const LrOptions lr{.schedule = ParseLrSchedule(config.optimizer.lr_schedule), .peak = config.optimizer.learning_rate,
                     .warmup_fraction = config.optimizer.warmup_fraction,
                     .min_fraction = config.optimizer.min_lr_fraction, .steps = config.run.steps};
  for (; step < config.run.steps; ++step) {
    if (hooks.stop && hooks.stop()) {
      result.stopped_early = true;
      break;
    }
    const auto begin = SteadyClock::now();
    const auto rows = OfflineBatch(objective.size(), options.batch, step, config.run.seed, options.shuffle);
    std::map<std::string, double> metrics = objective.Train(rows, LearningRate(lr, step), step);
    const int64_t done = step + 1;
    result.tokens += static_cast<int64_t>(metrics["perf/train_tokens"]);
    metrics["time/train"] = SecondsSince(begin);
    metrics["data/epoch"] = static_cast<double>(done * options.batch) / static_cast<double>(objective.size());
    const auto trained = SteadyClock::now();
    if (config.run.checkpoint_every > 0 && done % config.run.checkpoint_every == 0 && done < config.run.steps) {
      save(done);
      last_saved = done;
    }
    metrics["time/checkpoint"] = SecondsSince(trained);
    if (config.eval.every > 0 && done % config.eval.every == 0 && done < config.run.steps) {
      if (const auto now = evaluate(done)) {
        metrics["eval/accuracy"] = now->accuracy;
        metrics["eval/loss"] = now->loss.value_or(0);
        metrics["eval/margin"] = now->reward;
      }
      phase("training");
    }
    metrics["time/step"] = SecondsSince(begin);
    metrics["perf/mfu"] = 6 * static_cast<double>(policy_model::ParametersInProducts(weights.shape())) *
                          (metrics["perf/train_tokens"] - metrics["perf/shared_tokens"]) /
                          std::max(1e-9, metrics["time/train"] * product_speed);
    metrics["perf/tokens_per_s"] = metrics["perf/train_tokens"] / std::max(1e-9, metrics["time/step"]);
    if (hooks.step) hooks.step(step, metrics);
  }

  result.steps = step;
  if (last_saved != step || (found && step == result.first_step)) save(step);
  if (!result.stopped_early) result.after = evaluate(step);
  result.skipped_updates = optimizer.skipped();
  result.wall_s = earlier_wall_s + SecondsSince(started);
  result.weights_sha256 = Sha256Of({&weights.flat()});
  result.optimizer_sha256 = Sha256Of({&optimizer.m(), &optimizer.v()});
  for (const NamedModel& model : objective.Models()) {
    result.model_sha256[model.name] = Sha256Of({&model.weights->flat(), &model.optimizer->m(), &model.optimizer->v()});
  }
  return result;
}

}  // namespace plumb::learner
