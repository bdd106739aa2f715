#include "learner/learner_loop.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/crash_point.h"
#include "common/digest.h"
#include "common/error.h"
#include "common/sha256.h"
#include "learner/batch_metrics.h"
#include "learner/finite.h"
#include "learner/schedule.h"
#include "policy_model/speed.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using SteadyClock = std::chrono::steady_clock;

double Seconds(SteadyClock::duration d) { return std::chrono::duration<double>(d).count(); }

std::string Sha256Of(std::initializer_list<const policy_model::FlatBuffer*> buffers) {
  Sha256 hash;
  for (const policy_model::FlatBuffer* buffer : buffers) {
    std::vector<std::byte> host(buffer->bytes());
    buffer->CopyToHost(host);
    hash.Update(host);
  }
  return hash.HexDigest();
}

Json ToJson(const EvalResult& e) {
  return {{"version", e.version}, {"accuracy", e.accuracy}, {"reward", e.reward}, {"reward_se", e.reward_se}, {"answers", e.answers},
          {"unscored", e.unscored}};
}

EvalResult FromJson(const Json& j) {
  return {.version = j.at("version").get<int64_t>(), .accuracy = j.at("accuracy").get<double>(),
          .reward = j.at("reward").get<double>(), .reward_se = j.value("reward_se", 0.0), .answers = j.at("answers").get<int64_t>(),
          .unscored = j.at("unscored").get<int64_t>()};
}

void CheckBeforeSaving(const std::string& name, const policy_model::Weights& weights) {
  std::vector<std::byte> host(weights.flat().bytes());
  weights.flat().CopyToHost(host);
  const std::string where = FirstNonFinite(weights.table(), weights.flat().dtype(), host);
  if (where.empty()) return;
  throw Error(ErrorCode::kNonFinite, "the weights of the " + name + " hold a value that is not finite, in " + where +
                                         ": they were not saved; --resume goes on from the last checkpoint", "learner");
}

constexpr int64_t kMaxStepsWithoutAnswers = 3;  // in a row

bool AnyUsable(std::span<const TrajectoryGroup> groups) {
  return std::any_of(groups.begin(), groups.end(), [](const TrajectoryGroup& group) {
    return std::any_of(group.trajectories.begin(), group.trajectories.end(), Usable);
  });
}

}  // namespace

EvalResult Summarise(std::span<const TrajectoryGroup> groups, const std::string& success_part, int64_t version) {
  EvalResult out{.version = version};
  int64_t solved = 0, scored = 0;
  double squares = 0;
  for (const auto& group : groups) {
    for (const auto& t : group.trajectories) {
      ++out.answers;
      if (!t.scored) {
        ++out.unscored;
        continue;
      }
      ++scored;
      out.reward += t.reward;
      squares += t.reward * t.reward;
      for (const auto& part : t.rewards) {
        if (success_part.empty() || part.name == success_part) {
          solved += part.value >= 0.5;
          break;
        }
      }
    }
  }
  if (scored) out.reward /= static_cast<double>(scored);
  if (scored > 1) {
    const auto n = static_cast<double>(scored);
    out.reward_se = std::sqrt(std::max(0.0, squares / n - out.reward * out.reward) / (n - 1));
  }
  if (out.answers) out.accuracy = static_cast<double>(solved) / static_cast<double>(out.answers);
  return out;
}

LearnerLoop::LearnerLoop(const configs::Config& config, policy_model::Weights& weights, BatchSource& batches,
                         WeightSink& sink, Checkpoints& checkpoints, std::span<const Demonstration> sft_train,
                         std::span<const Demonstration> sft_heldout, LearnerHooks hooks)
    : config_(config),
      weights_(weights),
      batches_(batches),
      sink_(sink),
      checkpoints_(checkpoints),
      sft_train_(sft_train),
      sft_heldout_(sft_heldout),
      hooks_(std::move(hooks)),
      transformer_(weights.shape(), weights.flat().device(), weights.flat().dtype()),
      train_(transformer_, config.optimizer.micro_batch_tokens),
      optimizer_(weights, config.optimizer),
      started_(SteadyClock::now()) {}

double LearnerLoop::Elapsed() const { return earlier_wall_s_ + Seconds(SteadyClock::now() - started_); }

Deadline LearnerLoop::StallDeadline() const {
  return After(std::chrono::milliseconds(static_cast<int64_t>(config_.run.stall_seconds * 1000)));
}

void LearnerLoop::WarmStart() {
  if (config_.sft.steps <= 0) return;
  Phase("warm start");
  SftResult sft = RunSft(train_, weights_, optimizer_, config_.sft, config_.run.seed, sft_train_, sft_heldout_,
                         [&](const SftStep& s) {
                           if (hooks_.sft_step) hooks_.sft_step(s);
                           return !(hooks_.stop && hooks_.stop());
                         });
  result_.stopped_early = sft.stopped;
  if (!sft.stopped && sft.heldout_first > 0) {
    Phase("warm start: " + std::to_string(sft.steps) + " updates, held-out loss " + std::to_string(sft.heldout_last) +
          (sft.flat ? " nats a token and flat" : " nats a token and STILL FALLING: raise sft.steps"));
  }
  result_.tokens += sft.tokens;
  result_.sft = sft;
  optimizer_.ResetMoments();  // another objective: its curvature says nothing about this one
}

void LearnerLoop::Publish(int64_t version) {
  const auto& flat = weights_.flat();
  std::span<const std::byte> bytes(static_cast<const std::byte*>(flat.data()), flat.bytes());
  if (flat.device() != Device::kCpu) {  // one copy for both the digest and the actors
    published_.resize(flat.bytes());
    flat.CopyToHost(published_);
    bytes = published_;
  }
  if (const std::string where = FirstNonFinite(weights_.table(), flat.dtype(), bytes); !where.empty()) {
    throw Error(ErrorCode::kNonFinite, "the weights of version " + std::to_string(version) + " hold a value that is not finite, in " +
                                           where + ": they were not published and not saved; --resume goes on from the last checkpoint",
                "learner");
  }
  result_.policy = {.version = version, .digest = WeightDigest(bytes)};
  sink_.Publish(result_.policy, bytes);
}

void LearnerLoop::SaveCheckpoint(int64_t next_step) {
  CRASH_POINT("before_checkpoint");
  CheckBeforeSaving("policy", weights_);
  for (const NamedModel& model : algorithm_->Models()) CheckBeforeSaving(model.name, *model.weights);
  checkpoints_.Save({.step = next_step, .policy = result_.policy, .counters = optimizer_.counters(),
                     .moment_steps = optimizer_.moment_steps(), .seed = config_.run.seed,
                     .store_cursor = next_step * config_.rollout.prompts_per_step, .tokens = result_.tokens,
                     .wall_s = Elapsed(), .state_json = StateJson(), .algorithm_json = algorithm_->StateJson()},
                    weights_, optimizer_, algorithm_->Models());
  CRASH_POINT("after_checkpoint");
  if (hooks_.checkpointed) hooks_.checkpointed(checkpoints_.OldestCursor() / config_.rollout.prompts_per_step);
}

std::string LearnerLoop::StateJson() const {
  Json j = Json::object();
  if (hooks_.store_state) j["store"] = hooks_.store_state();
  if (result_.before) j["before"] = ToJson(*result_.before);
  if (result_.sft) {
    j["sft"] = {{"steps", result_.sft->steps}, {"tokens", result_.sft->tokens},
                {"heldout_first", result_.sft->heldout_first}, {"heldout_last", result_.sft->heldout_last},
                {"flat", result_.sft->flat}};
  }
  return j.dump();
}

void LearnerLoop::RestoreState(const std::string& text) {
  const Json j = Json::parse(text);
  if (j.contains("before")) result_.before = FromJson(j["before"]);
  if (j.contains("sft")) {
    const Json& s = j["sft"];
    result_.sft = SftResult{.steps = s.at("steps"), .tokens = s.at("tokens"), .heldout_first = s.at("heldout_first"),
                            .heldout_last = s.at("heldout_last"), .flat = s.at("flat")};
  }
}

void LearnerLoop::Evaluate(int64_t version, std::optional<EvalResult>& into) {
  if (config_.data.eval.empty()) return;
  Phase("evaluating version " + std::to_string(version));
  const auto groups = batches_.Evaluate(version, static_cast<int>(config_.eval.samples), StallDeadline());
  into = Summarise(groups, config_.eval.success_part, version);
  if (hooks_.evaluated) hooks_.evaluated(*into, groups);
}

bool LearnerLoop::LastUpdateApplied() const {
  bool applied = optimizer_.counters().skipped_in_a_row == 0;
  for (const NamedModel& model : algorithm_->Models()) applied = applied && model.optimizer->counters().skipped_in_a_row == 0;
  return applied;
}

double LearnerLoop::ShareOfSpeed(double tokens, double seconds) const {
  int64_t parameters = policy_model::ParametersInProducts(weights_.shape());
  for (const NamedModel& model : algorithm_->Models()) parameters += policy_model::ParametersInProducts(model.weights->shape());
  return 6 * static_cast<double>(parameters) * tokens / std::max(1e-9, seconds * product_speed_);
}

LearnerResult LearnerLoop::Run(bool resume) {
  int64_t step = 0;
  std::optional<Checkpoints::Found> found;
  if (resume) {
    found = checkpoints_.FindNewest();
    if (found) {
      for (const auto& rejected : found->rejected) Phase("skipped an unusable checkpoint: " + rejected);
      if (found->state.seed != config_.run.seed) {
        throw Error(ErrorCode::kConflict, "the checkpoint was made with run.seed = " + std::to_string(found->state.seed) +
                                              ", the recipe says " + std::to_string(config_.run.seed), found->path);
      }
      checkpoints_.Load(*found, weights_, optimizer_);
      step = found->state.step;
      earlier_wall_s_ = found->state.wall_s;
      result_.tokens = found->state.tokens;
      RestoreState(found->state.state_json);
      const std::string store = Json::parse(found->state.state_json).value("store", std::string());
      if (hooks_.resumed && !store.empty()) hooks_.resumed(step, store);
      Phase("resumed at step " + std::to_string(step) + " from " + found->path);
    }
  }
  const bool restored = found.has_value();
  CheckAlgorithm(config_, weights_.shape());
  if (!restored) WarmStart();
  if (NeedsReference(config_)) {
    // Step 0's weights are the reference; a resumed run finds them in the checkpoint folder.
    reference_ = std::make_unique<ReferencePolicy>(weights_, train_);
    checkpoints_.KeepReference(restored, reference_->weights());
  }
  algorithm_ = MakeAlgorithm({.config = config_, .train = train_, .weights = weights_, .optimizer = optimizer_,
                              .reference = reference_.get()});
  if (restored) {
    checkpoints_.LoadModels(*found, algorithm_->Models());
    algorithm_->RestoreState(found->state.algorithm_json);
  }
  result_.first_step = step;

  Publish(step);
  if (!restored) SaveCheckpoint(0);
  if (step == 0 && !result_.before) Evaluate(0, result_.before);

  Phase("training");
  product_speed_ = policy_model::MeasureProductSpeed(weights_.flat().device(), weights_.flat().dtype());
  const LrOptions lr{.schedule = ParseLrSchedule(config_.optimizer.lr_schedule), .peak = config_.optimizer.learning_rate,
                     .warmup_fraction = config_.optimizer.warmup_fraction,
                     .min_fraction = config_.optimizer.min_lr_fraction, .steps = config_.run.steps};
  int64_t last_saved = step;
  bool due = false;  // a checkpoint
  int64_t without_answers = 0;
  double checkpoint_s = 0;  // of the checkpoint after the step before, reported with the next
  for (; step < config_.run.steps && !result_.stopped_early; ++step) {
    if (hooks_.stop && hooks_.stop()) {
      result_.stopped_early = true;
      break;
    }
    const auto t0 = SteadyClock::now();
    const std::vector<TrajectoryGroup> groups = batches_.Next(step, StallDeadline());
    const auto t1 = SteadyClock::now();
    const auto own = std::span(groups).first(
        std::min(groups.size(), static_cast<size_t>(config_.rollout.prompts_per_step)));
    without_answers = AnyUsable(own) ? 0 : without_answers + 1;
    if (without_answers == kMaxStepsWithoutAnswers) {
      throw Error(ErrorCode::kUnavailable,
                  "not one answer of the last " + std::to_string(without_answers) +
                      " steps was scored (the log says why), so they trained nothing: mend the reward, " +
                      "try it with `plumb reward test`, then resume",
                  "step " + std::to_string(step));
    }
    CRASH_POINT("before_update");
    std::map<std::string, double> metrics = algorithm_->Train(groups, LearningRate(lr, step), step);
    const auto t2 = SteadyClock::now();
    Publish(step + 1);
    const auto t3 = SteadyClock::now();
    CRASH_POINT("after_publish");
    result_.tokens += static_cast<int64_t>(metrics["perf/train_tokens"]);
    int64_t generated = 0, staleness_max = 0;
    double staleness_sum = 0;
    for (const auto& g : own) {
      for (const auto& t : g.trajectories) generated += t.completion_length();
    }
    for (const auto& g : groups) {
      const int64_t staleness = step - g.policy.version;
      staleness_sum += static_cast<double>(staleness);
      staleness_max = std::max(staleness_max, staleness);
    }
    metrics["offpolicy/staleness_mean"] = groups.empty() ? 0 : staleness_sum / static_cast<double>(groups.size());
    metrics["offpolicy/staleness_max"] = static_cast<double>(staleness_max);
    metrics["time/wait"] = Seconds(t1 - t0);
    metrics["time/train"] = Seconds(t2 - t1);
    metrics["time/publish"] = Seconds(t3 - t2);
    metrics["time/checkpoint"] = std::exchange(checkpoint_s, 0);
    const int64_t done = step + 1;
    metrics["time/step"] = Seconds(SteadyClock::now() - t0);
    metrics["perf/tokens_per_s"] = static_cast<double>(generated) / std::max(1e-9, metrics["time/step"]);
    metrics["perf/generated_tokens"] = static_cast<double>(generated);
    metrics["perf/mfu"] = ShareOfSpeed(metrics["perf/train_tokens"] - metrics["perf/shared_tokens"], metrics["time/train"]);
    if (config_.eval.every > 0 && done % config_.eval.every == 0 && done < config_.run.steps) {
      std::optional<EvalResult> now;
      Evaluate(done, now);
      if (now) metrics["eval/accuracy"] = now->accuracy;
      Phase("training");
    }
    if (hooks_.batch) hooks_.batch(step, own);
    if (hooks_.step) hooks_.step(step, metrics);
    // After the step's line is out: a run killed here goes on behind the checkpoint and would never write it.
    // A checkpoint that is due waits for an update that was applied: the newest one is to be the last good one.
    due = due || (config_.run.checkpoint_every > 0 && done % config_.run.checkpoint_every == 0);
    if (due && LastUpdateApplied() && done < config_.run.steps) {
      due = false;
      const auto t4 = SteadyClock::now();
      SaveCheckpoint(done);
      last_saved = done;
      checkpoint_s = Seconds(SteadyClock::now() - t4);
    }
  }

  result_.steps = step;
  if (last_saved != step || (restored && step == result_.first_step)) SaveCheckpoint(step);
  if (!result_.stopped_early) Evaluate(step, result_.after);
  batches_.Finish();
  result_.skipped_updates = optimizer_.skipped();
  result_.wall_s = Elapsed();
  result_.weights_sha256 = Sha256Of({&weights_.flat()});
  result_.optimizer_sha256 = Sha256Of({&optimizer_.m(), &optimizer_.v()});
  for (const NamedModel& model : algorithm_->Models()) {
    result_.skipped_updates += model.optimizer->skipped();
    result_.model_sha256[model.name] =
        Sha256Of({&model.weights->flat(), &model.optimizer->m(), &model.optimizer->v()});
  }
  return result_;
}

}  // namespace plumb::learner
