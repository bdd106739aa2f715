#include "learner/loop/learner_loop.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "configs/checks/distill_check.h"
#include "configs/parallel.h"
#include "learner/algorithms/batch_metrics.h"
#include "learner/loop/data_batches.h"
#include "learner/update/stages/model_stage.h"

namespace plumb::learner {
namespace {

using SteadyClock = std::chrono::steady_clock;

double Seconds(SteadyClock::duration d) { return std::chrono::duration<double>(d).count(); }

bool AnyUsable(std::span<const TrajectoryGroup> groups) {
  return std::any_of(groups.begin(), groups.end(), [](const TrajectoryGroup& group) {
    return std::any_of(group.trajectories.begin(), group.trajectories.end(), Usable);
  });
}

}  // namespace

EvalResult Summarise(std::span<const TrajectoryGroup> groups, const std::string& success_part,
                     int64_t version) {
  const Losses losses = LossesOf(groups);
  EvalResult out{.version = version,
                 .answers = losses.answers,
                 .unscored = losses.unscored,
                 .aborted = losses.aborted,
                 .reason = losses.reason};
  int64_t solved = 0, scored = 0;
  double squares = 0;
  std::vector<std::pair<double, double>> prompts;  // answers solved, answers
  for (const auto& group : groups) {
    const int64_t solved_before = solved;
    for (const auto& t : group.trajectories) {
      if (!Usable(t)) continue;
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
    const auto answers = group.trajectories.empty() ? static_cast<size_t>(group.lease.num_samples)
                                                    : group.trajectories.size();
    prompts.emplace_back(static_cast<double>(solved - solved_before), static_cast<double>(answers));
  }
  if (scored) out.reward /= static_cast<double>(scored);
  if (scored > 1) {
    const auto n = static_cast<double>(scored);
    out.reward_se = std::sqrt(std::max(0.0, squares / n - out.reward * out.reward) / (n - 1));
  }
  if (out.answers) out.accuracy = static_cast<double>(solved) / static_cast<double>(out.answers);
  if (prompts.size() > 1) {  // of the ratio of two sums over prompts
    double spread = 0;
    for (const auto& [right, all] : prompts) spread += std::pow(right - out.accuracy * all, 2);
    const auto n = static_cast<double>(prompts.size());
    out.accuracy_se = std::sqrt(spread * n / (n - 1)) / static_cast<double>(out.answers);
  }
  return out;
}

LearnerLoop::LearnerLoop(const configs::Config& config, policy_model::Weights& weights,
                         BatchSource& batches, WeightSink& sink, Checkpoints& checkpoints,
                         std::span<const Demonstration> sft_train,
                         std::span<const Demonstration> sft_heldout, const LearnerHooks& hooks,
                         Ranks* ranks, int ranks_here)
    : StepLoop(config, weights, own_optimizer_, checkpoints, hooks,
               configs::BatchRampOf(config.optimizer, config.rollout.prompts_per_step), ranks),
      batches_(batches),
      sink_(sink),
      sft_train_(sft_train),
      sft_heldout_(sft_heldout),
      grid_(ranks, static_cast<int>(configs::ReadParallel(config.run.parallel).tp), ranks_here,
            static_cast<int>(configs::ReadParallel(config.run.parallel).pp)),
      experts_(ranks, static_cast<int>(configs::ReadParallel(config.run.parallel).ep), ranks_here),
      share_(experts_.there()
                 ? MakeExpertShare(experts_, weights, ModelShare::Whole::kStays)
                 : MakeShareOf(weights, grid_.tensor(), grid_.stages(), ModelShare::Whole::kStays)),
      transformer_(trained().shape(), weights.flat().stream(), weights.flat().dtype()),
      train_(transformer_, config.optimizer.micro_batch_tokens, grid_.data()),
      own_optimizer_(trained(), config.optimizer, TrainingRulesOf(config),
                     SharingOf(config, grid_.data(), share_.get(), experts_)),
      balance_(config.experts, config.run.seed, transformer_, trained(), own_optimizer_) {
  const bool again = config.optimizer.recompute == configs::Recompute::kLayer;
  transformer_.SetGroup(share_ ? share_->group() : nullptr, weights.shape().vocab);
  transformer_.SetExpertGroup(experts_.exchange());
  transformer_.RecomputeLayers(again);
  transformer_.UseProducts(config.model.products);
  train_.UsePartsOf(trained(), own_optimizer_);
  train_.UsePipeline(PipelineOf(share_.get()), again);
}

Deadline LearnerLoop::StallDeadline() const {
  return After(std::chrono::milliseconds(static_cast<int64_t>(config_.run.stall_seconds * 1000)));
}

// Only a Plumb that did not keep warm starts leaves a checkpoint of steps behind one that did not
// come to its end.
void LearnerLoop::CheckWarmStart() const {
  if (warm_start_ended_ || !result_.sft || result_.sft->flat ||
      result_.sft->steps >= config_.sft.steps)
    return;
  const std::string cut = "an earlier version stopped the warm start of this run after " +
                          std::to_string(result_.sft->steps) + " of " +
                          std::to_string(config_.sft.steps) + " updates and left out the rest";
  if (result_.first_step > 0) return Phase(cut + ": what was trained since lies on that");
  throw Error(ErrorCode::kConflict,
              cut + ": nothing was trained on it yet, start anew with --overwrite or another --out",
              "learner");
}

// Step 0's weights are the reference; a resumed run finds them in the checkpoint folder.
void LearnerLoop::KeepReference(bool restored) {
  if (!share_) {
    // A new run's lies in the memory of every rank; a file of it is made once.
    if (restored || first()) checkpoints_.KeepReference(restored, reference_->weights());
    return;
  }
  // The file is of the whole, which a new run's weights are.
  if (!restored) {
    if (first()) checkpoints_.KeepReference(restored, weights_);
    return;
  }
  policy_model::Weights whole = weights_.Twin();
  checkpoints_.KeepReference(restored, whole);
  share_->Take(whole, reference_->weights());
}

void LearnerLoop::MakeAlgorithmAndReference(bool restored) {
  if (NeedsReference(config_)) {
    reference_ = std::make_unique<ReferencePolicy>(trained(), train_, config_.sft.steps > 0);
    KeepReference(restored);
    if (restored && config_.algorithm.reference_sync_every > 0)
      checkpoints_.LoadRenewedReference(result_.first_step, reference_->weights());
  }
  if (configs::Distills(config_))
    distiller_ = std::make_unique<Distiller>(config_, weights_, ranks_, reference_.get());
  algorithm_ = MakeAlgorithm({.config = config_,
                              .train = train_,
                              .weights = trained(),
                              .optimizer = optimizer_,
                              .reference = reference_.get(),
                              .distiller = distiller_.get()});
  if (config_.distill.student_share < 1) {
    PLUMB_CHECK(distiller_ != nullptr && !sft_train_.empty(), "a teacher, and data to teach");
    algorithm_ = std::make_unique<DataBatches>(std::move(algorithm_), config_, train_, trained(),
                                               optimizer_, *distiller_, sft_train_);
  }
}

bool LearnerLoop::Prepare(bool restored, bool resume) {
  CheckAlgorithm(config_, weights_.shape());
  if (restored) CheckWarmStart();
  else if (config_.sft.steps > 0 && !WarmStart(resume)) return false;
  try {
    MakeAlgorithmAndReference(restored);
  } catch (...) {
    KeepWarmStart();
    throw;
  }
  return true;
}

void LearnerLoop::TakeUpWarmStart() {
  std::vector<std::string> rejected;
  const std::optional<Checkpoints::Found> found = checkpoints_.FindWarmStart(rejected);
  if (ranks_) {
    ranks_->CheckSame("the warm start to go on from",
                      found ? std::to_string(found->state.step) : "none");
  }
  for (const std::string& each : rejected)
    Phase("skipped an unusable checkpoint of the warm start: " + each);
  if (!found) return Phase("the warm start begins anew");
  CheckSeed(*found);
  const RunState state = ReadRunState(found->state.state_json, found->path);
  if (!state.sft)
    throw Error(ErrorCode::kCorruption,
                "the checkpoint of a warm start does not say how far it was", found->path);
  LoadFrom(*found);
  sft_ = *state.sft;
  sft_saved_ = sft_.steps;
  if (found->state.LacksMoments())
    Phase("the optimizer's moments begin anew: checkpoint.optimizer is \"never\"");
  Phase("the warm start goes on behind " + std::to_string(sft_.steps) + " of " +
        std::to_string(config_.sft.steps) + " updates, from " + found->path);
}

void LearnerLoop::SaveWarmStart(bool beside) {
  if (sft_.steps <= sft_saved_) return;
  const bool moments = config_.checkpoint.optimizer != configs::KeepOptimizer::kNever;
  optimizer_.FoldResiduals();
  optimizer_.GatherWeights();
  if (!first()) {
    CheckpointState given;
    given.moments = moments;
    Checkpoints::Give(given, optimizer_);
    sft_saved_ = sft_.steps;
    return;
  }
  CRASH_POINT("before_warm_start_checkpoint");
  Identify(-1);
  Write(Checkpoints::Kind::kWarmStart,
        {.step = sft_.steps,
         .policy = result_.policy,
         .counters = optimizer_.counters(),
         .moment_steps = optimizer_.moment_steps(),
         .moments = moments,
         .seed = config_.run.seed,
         .tokens = sft_.tokens,
         .wall_s = Elapsed(),
         .state_json = WriteRunState({.sft = sft_})},
        {}, "the warm start, update " + std::to_string(sft_.steps), beside && WritesBeside(),
        [this, steps = sft_.steps] {
          sft_saved_ = steps;
          CRASH_POINT("after_warm_start_checkpoint");
        });
}

// An error is on its way: what was learned is kept, unless it struck between an update and its end.
// Throws nothing.
void LearnerLoop::KeepWarmStart() {
  try {
    Settle(/*wait=*/true);
  } catch (const std::exception& e) {
    Phase(std::string("the checkpoint that was being written could not be saved: ") + e.what());
  }
  if (optimizer_.updates() != sft_counters_.updates || sft_.steps <= sft_saved_) return;
  if (!first() || optimizer_.spread()) return;  // the others may be gone
  try {
    optimizer_.Restore(sft_counters_);  // skipped updates are tried again
    SaveWarmStart(/*beside=*/false);
    Phase("saved " + std::to_string(sft_.steps) +
          " updates of the warm start; --resume goes on behind them");
  } catch (const std::exception& e) {
    Phase(std::string("the warm start could not be saved: ") + e.what());
  }
}

bool LearnerLoop::WarmStart(bool resume) {
  Phase("warm start");
  const std::string& folder = checkpoints_.folder();
  CheckFits({.last = CheckpointBytes(weights_, optimizer_, {}, {.moments = false})},
            FreeBytes(folder), folder);
  if (resume) TakeUpWarmStart();
  sft_counters_ = optimizer_.counters();
  bool due = false;  // a checkpoint; it waits for an update that is applied
  const auto on_step = [&](const SftStep& step, const SftResult& done) {
    std::map<std::string, double> load;
    balance_.End(load);
    balance_.Begin(ExpertBalance::Phase::kWarmStart, done.steps);
    if (optimizer_.counters().skipped_in_a_row == 0) {
      sft_ = done;
      sft_counters_ = optimizer_.counters();
    }
    Settle(/*wait=*/false);
    if (hooks_.sft_step) hooks_.sft_step(step);
    due =
        due || (config_.run.checkpoint_every > 0 && done.steps % config_.run.checkpoint_every == 0);
    if (due && sft_.steps == done.steps && done.steps < config_.sft.steps) {
      due = false;
      SaveWarmStart(/*beside=*/true);
    }
    return !Stop();
  };
  balance_.Begin(ExpertBalance::Phase::kWarmStart, sft_.steps);
  try {
    sft_ = RunSft(train_, trained(), optimizer_, config_.sft, config_.run.seed, sft_train_,
                  sft_heldout_, on_step, sft_);
    sft_counters_ = optimizer_.counters();
    result_.sft = sft_;
    optimizer_.GatherWeights();
    Settle(/*wait=*/true);
    if (sft_.stopped) SaveWarmStart(/*beside=*/false);
  } catch (...) {
    KeepWarmStart();
    throw;
  }
  const SftResult& sft = *result_.sft;
  result_.tokens += sft.tokens;
  if (sft.stopped) {
    Phase("the warm start was stopped after " + std::to_string(sft.steps) + " of " +
          std::to_string(config_.sft.steps) + " updates: --resume goes on from there");
    return false;
  }
  if (sft.heldout_first > 0) {
    Phase(
        "warm start: " + std::to_string(sft.steps) + " updates, held-out loss " +
        std::to_string(sft.heldout_last) +
        (sft.flat ? " nats a token and flat" : " nats a token and STILL FALLING: raise sft.steps"));
  }
  optimizer_.ResetMoments();  // another objective: its curvature says nothing about this one
  return true;
}

void LearnerLoop::Publish(int64_t version) {
  optimizer_.GatherWeights();
  Identify(version);
  sink_.Publish(result_.policy, SetsToPublish(sink_));
}

void LearnerLoop::CheckAnswers(const std::function<void()>& check) {
  try {
    check();
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kNonFinite) DisownSteps();
    throw;
  }
}

std::optional<EvalResult> LearnerLoop::Evaluate(int64_t version) {
  if (config_.data.eval.empty()) return std::nullopt;
  Phase("evaluating version " + std::to_string(version));
  const auto groups =
      batches_.Evaluate(version, static_cast<int>(config_.eval.samples), StallDeadline());
  const EvalResult result = Summarise(groups, config_.eval.success_part, version);
  if (hooks_.evaluated) hooks_.evaluated(result, groups);
  CheckAnswers([&] {
    CheckGenerated(LossesOf(groups), "the evaluation of version " + std::to_string(version));
  });
  return result;
}

// Of what compares answers to one prompt, a step learns from prompts whose answers differ in
// reward; of what compares a whole batch, from a batch in which any two do.
void LearnerLoop::CountRewards(std::span<const TrajectoryGroup> groups) {
  const bool within_prompts = config_.algorithm.name != configs::AlgorithmName::kPpo &&
                              config_.algorithm.advantage != configs::Advantage::kBatch;
  RewardTally& tally = result_.rewards;
  tally.equal_steps += !RewardsDiffer(groups, within_prompts);
  tally.scoreless_steps += !AnyUsable(groups);
  if (!within_prompts) return;  // a group of equal rewards has a direction all the same
  for (const TrajectoryGroup& group : groups) {
    if (!AnyUsable(std::span(&group, 1))) continue;
    ++tally.groups;
    tally.equal_groups += !RewardsDiffer(std::span(&group, 1), /*within_prompts=*/true);
  }
}

void LearnerLoop::RenewReference(int64_t steps) {
  const int64_t every = config_.algorithm.reference_sync_every;
  if (every == 0 || steps % every != 0 || !reference_) return;
  reference_->Mix(trained(), config_.algorithm.reference_mix);
  if (first()) checkpoints_.KeepRenewedReference(steps, reference_->weights());
}

std::optional<StepLoop::Step> LearnerLoop::Train(int64_t step, double learning_rate) {
  const auto t0 = SteadyClock::now();
  std::vector<TrajectoryGroup> groups;
  try {
    groups = batches_.Next(step, StallDeadline());
  } catch (const Error& e) {
    if (!GivenUp(e)) throw;
    return std::nullopt;  // what has come in stays in the store
  }
  const auto t1 = SteadyClock::now();
  const auto own = std::span<const TrajectoryGroup>(groups).first(
      std::min(groups.size(), static_cast<size_t>(sizes_.Of(step))));
  Step out;
  out.taught = AnyUsable(own);
  CheckAnswers([&] { scoreless_.Add(own, step); });
  CRASH_POINT("before_update");
  balance_.Begin(ExpertBalance::Phase::kTraining, step);
  out.metrics = algorithm_->Train(groups, learning_rate, step);
  balance_.End(out.metrics);
  RenewReference(step + 1);
  const auto t2 = SteadyClock::now();
  Publish(step + 1);
  const auto t3 = SteadyClock::now();
  CRASH_POINT("after_publish");
  CountRewards(own);
  int64_t generated = 0, staleness_max = 0;
  double staleness_sum = 0;
  // Under async, where groups differ in it; the last counts all that are older.
  std::vector<int64_t> by_staleness;
  if (config_.run.max_staleness > 0)
    by_staleness.resize(static_cast<size_t>(std::min<int64_t>(config_.run.max_staleness, 16)) + 1);
  for (const auto& g : own) {
    for (const auto& t : g.trajectories) generated += t.policy_length();
  }
  for (const auto& g : groups) {
    const int64_t staleness = step - g.policy.version;
    staleness_sum += static_cast<double>(staleness);
    staleness_max = std::max(staleness_max, staleness);
    if (!by_staleness.empty()) {
      const auto last = static_cast<int64_t>(by_staleness.size()) - 1;
      ++by_staleness[static_cast<size_t>(std::clamp<int64_t>(staleness, 0, last))];
    }
  }
  auto& metrics = out.metrics;
  for (size_t i = 0; i < by_staleness.size(); ++i)
    metrics["offpolicy/staleness_" + std::to_string(i)] = static_cast<double>(by_staleness[i]);
  metrics["offpolicy/staleness_mean"] =
      groups.empty() ? 0 : staleness_sum / static_cast<double>(groups.size());
  metrics["offpolicy/staleness_max"] = static_cast<double>(staleness_max);
  metrics["time/wait"] = Seconds(t1 - t0);
  metrics["time/train"] = Seconds(t2 - t1);
  metrics["time/publish"] = Seconds(t3 - t2);
  metrics["perf/generated_tokens"] = static_cast<double>(generated);
  out.per_second = static_cast<double>(generated);
  if (hooks_.batch) hooks_.batch(step, own);
  return out;
}

}  // namespace plumb::learner
