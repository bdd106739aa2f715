#include "learner/loop/step_loop.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/hash/digest.h"
#include "common/base/hash/sha256.h"
#include "common/base/size_text.h"
#include "learner/loop/finite.h"
#include "learner/update/optimizer_file.h"
#include "learner/update/schedule.h"
#include "learner/update/shares/model_share.h"
#include "policy_model/speed.h"

namespace plumb::learner {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void HashTrained(const policy_model::Weights& weights, Sha256& hash) {
  for (const auto& set : weights.sets()) {
    if (set->trained) HashBuffer(set->flat, hash);
  }
}

// Forward and backward; a base that is not trained has no products for its gradient.
int64_t OperationsAToken(const policy_model::Weights& weights) {
  return (weights.base().trained ? 6 : 4) * policy_model::ParametersInProducts(weights.shape());
}

void CheckBeforeSaving(const std::string& name, const policy_model::Weights& weights) {
  const auto where = FirstNonFinite(weights);
  if (!where) return;
  throw Error(ErrorCode::kNonFinite,
              "the weights of the " + name + " hold a value that is not finite, in " + *where +
                  ": they were not saved; --resume goes on from the last checkpoint",
              "learner");
}

}  // namespace

StepLoop::StepLoop(const configs::Config& config, policy_model::Weights& weights,
                   Optimizer& optimizer, Checkpoints& checkpoints, const LearnerHooks& hooks,
                   const configs::BatchRamp& batches, Ranks* ranks)
    : config_(config),
      weights_(weights),
      optimizer_(optimizer),
      checkpoints_(checkpoints),
      hooks_(hooks),
      sizes_(batches),
      ranks_(ranks),
      writer_(checkpoints),
      started_(SteadyClock::now()) {}

double StepLoop::Elapsed() const { return earlier_wall_s_ + SecondsSince(started_); }

std::vector<WeightSet> StepLoop::SetsToPublish(const WeightSink& sink) {
  std::vector<WeightSet> out;
  host_.resize(digests_.size());
  published_.resize(digests_.size());
  for (size_t i = 0; i < digests_.size(); ++i) {
    const auto& flat = weights_.sets()[i]->flat;
    WeightSet& set = out.emplace_back(
        WeightSet{.name = digests_[i].first, .digest = digests_[i].second, .bytes = {}});
    if (!sink.WantsBytes() || std::exchange(published_[i], set.digest) == set.digest) continue;
    if (flat.device() == Device::kCpu || sink.TakesFromDevice()) {
      set.bytes = {static_cast<const std::byte*>(flat.data()), flat.bytes()};
      set.device = flat.device();
    } else {
      host_[i].resize(flat.bytes());
      flat.CopyToHost(host_[i]);
      set.bytes = host_[i];
    }
  }
  return out;
}

void StepLoop::Identify(int64_t version) {
  if (const auto where = FirstNonFinite(weights_)) {
    throw Error(
        ErrorCode::kNonFinite,
        "the weights of version " + std::to_string(version) +
            " hold a value that is not finite, in " + *where +
            ": they were not published and not saved; --resume goes on from the last checkpoint",
        "learner");
  }
  digests_ = weights_.SetDigests();
  result_.policy = {.version = version, .digest = CombineSets(digests_)};
}

void StepLoop::CheckSeed(const Checkpoints::Found& found) const {
  if (found.state.seed == config_.run.seed) return;
  throw Error(ErrorCode::kConflict,
              "the checkpoint was made with run.seed = " + std::to_string(found.state.seed) +
                  ", the recipe says " + std::to_string(config_.run.seed),
              found.path);
}

void StepLoop::LoadFrom(const Checkpoints::Found& found) {
  checkpoints_.Load(found, weights_, optimizer_);
  earlier_wall_s_ = found.state.wall_s;
}

std::optional<Checkpoints::Found> StepLoop::TakeUp() {
  std::optional<Checkpoints::Found> found = checkpoints_.FindNewest();
  if (ranks_) {
    ranks_->CheckSame(
        "the checkpoint to go on from",
        found ? std::to_string(found->state.step) + " " + found->state.policy.digest : "none");
  }
  if (!found) return found;
  for (const auto& rejected : found->rejected) Phase("skipped an unusable checkpoint: " + rejected);
  if (!found->passed.empty()) {
    Phase("the checkpoint of step " + std::to_string(found->passed.front()) +
          " is newer but holds no optimizer (checkpoint.optimizer_every): the run goes on, bit for "
          "bit, from the newest that does; --newest would take it");
  }
  CheckSeed(*found);
  const RunState state = ReadRunState(found->state.state_json, found->path);
  LoadFrom(*found);
  step_ = found->state.step;
  result_.tokens = found->state.tokens;
  result_.before = state.before;
  result_.sft = state.sft;
  warm_start_ended_ = !state.sft || state.sft_ended;
  result_.rewards = state.rewards;
  store_ = state.store;
  if (hooks_.resumed && !store_.empty()) hooks_.resumed(step_, store_);
  Phase("resumed at step " + std::to_string(step_) + " from " + found->path);
  if (!found->state.optimizer && step_ < config_.run.steps) {
    Phase(
        "warning: the checkpoint holds the weights alone: masters and moments of the optimizer "
        "begin anew, and the run is not bit for bit one that had never ended");
  } else if (found->state.LacksMoments() && step_ < config_.run.steps) {
    Phase(
        "warning: the checkpoint holds no moments of the optimizer: they begin anew, and the run "
        "is not bit for bit one that had never ended; checkpoint.optimizer = \"always\" keeps them "
        "next time");
  }
  if (result_.before && result_.before->seconds > 0 && hooks_.evaluation_took)
    hooks_.evaluation_took(result_.before->seconds);
  return found;
}

void StepLoop::BeginAnew() {
  Phase("there is no checkpoint yet: the run begins anew at step 0");
  if (hooks_.anew) hooks_.anew();
}

bool StepLoop::KeepsMoments(int64_t step) const {
  switch (config_.checkpoint.optimizer) {
    case configs::KeepOptimizer::kAlways: return true;
    case configs::KeepOptimizer::kNever: return false;
    case configs::KeepOptimizer::kUntilEnd: return step < config_.run.steps;
  }
  return true;
}

// The first and every so manyth behind it, so that there is always one to go on from; and that of
// the end.
bool StepLoop::KeepsOptimizer(int64_t step) const {
  const int64_t every = config_.run.checkpoint_every, apart = config_.checkpoint.optimizer_every;
  return every <= 0 || step >= config_.run.steps || (step / every - 1) % apart == 0;
}

// What is said before the first step, and what cannot be saved is not begun.
void StepLoop::TellSavePlan() {
  const int64_t every = config_.run.checkpoint_every, last = config_.run.steps;
  if (step_ >= last || !first()) return;
  const auto bytes = [&](int64_t step) {
    return CheckpointBytes(weights_, optimizer_, Models(), {.moments = KeepsMoments(step)});
  };
  const int64_t apart = config_.checkpoint.optimizer_every;
  const SavePlan plan{
      .between = every > 0 ? (last - 1) / every - step_ / every : 0,
      .each = bytes(step_),
      .last = bytes(last),
      .keep = config_.run.keep_checkpoints,
      .kept = last_saved_ ? 1 : 0,
      .apart = apart,
      .light = CheckpointBytes(weights_, optimizer_, Models(), {.optimizer = false}),
      .beside = config_.checkpoint.background,
      .best = best_ ? CheckpointBytes(weights_, optimizer_, {}, {.optimizer = false}) : 0};
  const int64_t free = FreeBytes(checkpoints_.folder());
  const bool two = plan.each != plan.last;
  Phase("a checkpoint holds " + SizeText(plan.each) +
        (apart > 1 ? ", without the optimizer " + SizeText(plan.light) : "") +
        (two ? ", that of the end " + SizeText(plan.last) : "") + "; free: " + SizeText(free));
  CheckFits(plan, free, checkpoints_.folder());
  if (const int64_t needed = plan.Needed(); needed > free) {
    Phase("warning: the disk may run full: the checkpoints need up to " + SizeText(needed) +
          ", the old one beside the new one until that is complete; make room, or lower "
          "run.keep_checkpoints");
  }
  if (hooks_.plan) hooks_.plan(plan);
}

std::vector<Optimizer*> StepLoop::Optimizers() {
  std::vector<Optimizer*> all = {&optimizer_};
  for (const NamedModel& model : Models()) all.push_back(model.optimizer);
  return all;
}

bool StepLoop::LastUpdateApplied() {
  const std::vector<Optimizer*> all = Optimizers();
  return std::all_of(all.begin(), all.end(),
                     [](Optimizer* each) { return each->counters().skipped_in_a_row == 0; });
}

StepLoop::Snapshot StepLoop::Capture(int64_t step) {
  Snapshot snapshot{.step = step,
                    .algorithm_json = AlgorithmJson(),
                    .tokens = result_.tokens,
                    .rewards = result_.rewards};
  if (result_.policy.version == step) snapshot.policy = result_.policy;
  for (Optimizer* each : Optimizers()) snapshot.counters.push_back(each->counters());
  return snapshot;
}

bool StepLoop::Untouched(const Snapshot& snapshot) {
  const std::vector<Optimizer*> all = Optimizers();
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i]->updates() != snapshot.counters[i].updates) return false;
  }
  return true;
}

// Ranks that keep a part of the optimizer each have to hand it over between two steps.
bool StepLoop::WritesBeside() const {
  return config_.checkpoint.background && !optimizer_.spread();
}

void StepLoop::Settle(bool wait) {
  const auto begin = SteadyClock::now();
  if (!in_flight_) return;
  std::optional<double> seconds;
  try {
    seconds = writer_.Ended(wait);
  } catch (...) {
    in_flight_.reset();
    throw;
  }
  if (!seconds) return;
  const double waited = SecondsSince(begin);
  const InFlight done = *std::exchange(in_flight_, std::nullopt);
  checkpoint_s_ += *seconds;
  checkpoint_wait_s_ += waited;
  if (hooks_.saved) hooks_.saved(done.bytes, *seconds, done.waited + waited);
  done.after();
}

void StepLoop::Write(Checkpoints::Kind kind, const CheckpointState& state,
                     std::span<const NamedModel> models, const std::string& what, bool beside,
                     std::function<void()> after) {
  Settle(/*wait=*/true);
  const int64_t bytes = CheckpointBytes(weights_, optimizer_, models,
                                        {.optimizer = state.optimizer, .moments = state.moments});
  if (hooks_.saving) hooks_.saving(what, bytes);
  const auto begin = SteadyClock::now();
  if (beside) {
    writer_.Begin(kind, state, weights_, optimizer_, models);
    const double copied = SecondsSince(begin);
    checkpoint_wait_s_ += copied;
    in_flight_ = {.bytes = bytes, .waited = copied, .after = std::move(after)};
    return;
  }
  if (kind == Checkpoints::Kind::kStep) checkpoints_.Save(state, weights_, optimizer_, models);
  else checkpoints_.SaveWarmStart(state, weights_, optimizer_);
  const double seconds = SecondsSince(begin);
  checkpoint_s_ += seconds;
  checkpoint_wait_s_ += seconds;
  if (hooks_.saved) hooks_.saved(bytes, seconds, seconds);
  after();
}

void StepLoop::CheckRanks(const std::string& when) {
  if (!ranks_) return;
  optimizer_.CheckShare("the weights " + when);
  // Of weights that are spread there is one of each, and nothing to compare.
  std::string all = optimizer_.weights_spread() ? "" : weights_.ComputeDigest();
  for (const NamedModel& model : Models())
    all += " " + model.name + " " + model.weights->ComputeDigest();
  ranks_->CheckSame("the weights " + when, all);
}

// kEnding: after an error or a stop, when nobody else may be there to ask or to tell.
void StepLoop::Save(const Snapshot& snapshot, Saving how) {
  // That of the end, of a stop and of an error is gone on from.
  const bool optimizer = how != Saving::kBeside || KeepsOptimizer(snapshot.step);
  // Moments that have seen no update are zero, kept or not.
  const std::vector<Optimizer*> all = Optimizers();
  const bool moments =
      optimizer && KeepsMoments(snapshot.step) &&
      std::any_of(all.begin(), all.end(), [](Optimizer* each) { return each->moment_steps() > 0; });
  for (Optimizer* each : all) each->FoldResiduals();
  const bool spread = optimizer_.weights_spread();
  if (spread) optimizer_.GatherWeights();
  if (!first()) {
    CheckpointState given;
    given.optimizer = optimizer;
    given.moments = moments;
    Checkpoints::Give(given, optimizer_, Models());
    last_saved_ = snapshot.step;
    saved_optimizer_ = optimizer;
    if (spread) optimizer_.SpreadWeights();
    return;
  }
  CRASH_POINT("before_checkpoint");
  ending_ = how == Saving::kEnding;
  CheckBeforeSaving("policy", weights_);
  for (const NamedModel& model : Models()) CheckBeforeSaving(model.name, *model.weights);
  PolicyVersion policy = snapshot.policy;
  if (policy.digest.empty()) {
    Identify(snapshot.step);
    policy = result_.policy;
  }
  // The store had seen at least what it told last; asking one that is gone would hold up the end.
  if (hooks_.store_state && (!ending_ || store_.empty())) store_ = hooks_.store_state();
  const RunState state{.store = store_,
                       .before = result_.before,
                       .sft = result_.sft,
                       .sft_ended = result_.sft.has_value(),
                       .rewards = snapshot.rewards};
  Write(Checkpoints::Kind::kStep,
        {.step = snapshot.step,
         .policy = policy,
         .counters = optimizer_.counters(),
         .moment_steps = optimizer_.moment_steps(),
         .optimizer = optimizer,
         .moments = moments,
         .seed = config_.run.seed,
         .store_cursor = sizes_.Before(snapshot.step),
         .tokens = snapshot.tokens,
         .wall_s = Elapsed(),
         .state_json = WriteRunState(state),
         .algorithm_json = snapshot.algorithm_json},
        Models(), "step " + std::to_string(snapshot.step), how == Saving::kBeside && WritesBeside(),
        [this, step = snapshot.step, optimizer] {
          last_saved_ = step;
          saved_optimizer_ = optimizer;
          CRASH_POINT("after_checkpoint");
          if (hooks_.checkpointed && !ending_)
            hooks_.checkpointed(sizes_.StepOf(checkpoints_.OldestCursor()));
        });
  if (spread) optimizer_.SpreadWeights();
}

// An error ends the run: what was good is kept, whatever it was. Throws nothing: the error that is
// on its way says more.
void StepLoop::SaveGoodSteps() {
  if (!first()) return;
  ending_ = true;
  try {
    Settle(/*wait=*/true);
  } catch (const std::exception& e) {
    Phase(std::string("the checkpoint that was being written could not be saved: ") + e.what());
  }
  const int64_t saved = last_saved_.value_or(0);
  if (!good_ || good_->step < saved || (good_->step == saved && saved_optimizer_)) return;
  const std::string steps =  // good as far as is known: the last may have broken the weights
      std::to_string(good_->step - saved) + (good_->step - saved == 1 ? " step" : " steps") +
      " since " +
      (last_saved_ ? "the checkpoint of step " + std::to_string(*last_saved_) : "the start");
  if (optimizer_.spread()) {
    Phase("the " + steps +
          " were not saved, because the ranks keep a part of the optimizer each (run.zero, "
          "run.gradient_wire): they "
          "are done again after --resume");
    return;
  }
  try {
    if (!Untouched(*good_)) {
      Phase("the error struck between two updates of a step: the " + steps +
            " were not saved and are done again after --resume");
      return;
    }
    const std::vector<Optimizer*> all = Optimizers();
    for (size_t i = 0; i < all.size(); ++i)
      all[i]->Restore(good_->counters[i]);  // skipped updates are tried again
    Save(*good_, Saving::kEnding);
    Phase("saved the " + steps + "; --resume goes on at step " + std::to_string(good_->step));
  } catch (const std::exception& e) {
    Phase("the " + steps + " could not be saved: " + e.what());
  }
}

std::optional<EvalResult> StepLoop::EvaluateOrStop(int64_t version) {
  const auto begin = SteadyClock::now();
  try {
    std::optional<EvalResult> result = Evaluate(version);
    if (!result) return result;
    result->seconds = SecondsSince(begin);
    if (hooks_.evaluation_took) hooks_.evaluation_took(result->seconds);
    if (best_ && best_->Beaten(*result)) {
      CheckBeforeSaving("policy", weights_);
      best_->Offer(*result, weights_);
      result_.best = best_->kept();
    }
    return result;
  } catch (const Error& e) {
    if (!GivenUp(e)) throw;
    given_up_ = result_.stopped_early = true;
    return std::nullopt;
  }
}

void StepLoop::OneStep(int64_t step, double learning_rate) {
  const auto begin = SteadyClock::now();
  const int64_t sent = ranks_ ? ranks_->sent_bytes() : 0;
  std::optional<Step> one = Train(step, learning_rate);
  if (!one) {
    given_up_ = result_.stopped_early = true;
    return;
  }
  std::map<std::string, double>& metrics = one->metrics;
  if (ranks_) {
    metrics["ranks/sent_bytes"] = static_cast<double>(ranks_->sent_bytes() - sent);
    CheckRanks("after step " + std::to_string(step));
  }
  step_ = step + 1;
  result_.tokens += static_cast<int64_t>(metrics["perf/train_tokens"]);
  if (one->taught && LastUpdateApplied()) good_ = Capture(step_);
  std::exception_ptr failed;  // the step was made: its line is written all the same
  try {
    Settle(/*wait=*/false);
  } catch (...) {
    failed = std::current_exception();
  }
  int64_t operations = OperationsAToken(weights_);
  for (const NamedModel& model : Models()) operations += OperationsAToken(*model.weights);
  metrics["perf/mfu"] =
      static_cast<double>(operations) *
      (metrics["perf/train_tokens"] - metrics["perf/shared_tokens"]) /
      std::max(1e-9, metrics["time/train"] * product_speed_ * (ranks_ ? ranks_->size() : 1));
  metrics["perf/product_tflops"] = product_speed_ / 1e12;
  metrics["perf/train_tokens_per_s"] =
      metrics["perf/train_tokens"] / std::max(1e-9, metrics["time/train"]);
  optimizer_.AddMetrics("", metrics);
  for (const NamedModel& model : Models()) model.optimizer->AddMetrics(model.name + "_", metrics);
  if (const auto beside = optimizer_.TakeBesideTimes()) {
    metrics["time/ranks"] = beside->busy;
    metrics["time/ranks_wait"] = beside->waited;
  }
  if (ModelShare* const share = optimizer_.share()) share->AddTimes(metrics);
  metrics["time/checkpoint"] = std::exchange(checkpoint_s_, 0);
  metrics["time/checkpoint_wait"] = std::exchange(checkpoint_wait_s_, 0);
  metrics["time/step"] = SecondsSince(begin);
  metrics["perf/tokens_per_s"] = one->per_second / std::max(1e-9, metrics["time/step"]);
  if (!failed && config_.eval.every > 0 && step_ % config_.eval.every == 0 &&
      step_ < config_.run.steps) {
    try {
      if (const auto now = EvaluateOrStop(step_)) {
        metrics["time/evaluate"] = now->seconds;
        if (now->reward_chosen) metrics["eval/reward_chosen"] = *now->reward_chosen;
        if (now->reward_rejected) metrics["eval/reward_rejected"] = *now->reward_rejected;
        if (now->loss) metrics["eval/loss"] = *now->loss;
        if (now->perplexity) {
          metrics["eval/perplexity"] = *now->perplexity;
        } else if (now->measured()) {
          metrics["eval/accuracy"] = now->accuracy;
          if (now->loss) metrics["eval/margin"] = now->reward;
        }
      }
      Phase("training");
    } catch (...) {
      failed = std::current_exception();
    }
  }
  try {
    if (hooks_.step) hooks_.step(step, metrics);
  } catch (...) {
    Phase("step " + std::to_string(step) + " was made, but its metrics could not be written");
    throw;
  }
  if (failed) std::rethrow_exception(failed);
  // After the step's line is out: a run killed here goes on behind the checkpoint and would never
  // write it.
  due_ = due_ || (config_.run.checkpoint_every > 0 && step_ % config_.run.checkpoint_every == 0);
  if (due_ && good_ && good_->step == step_ && step_ < config_.run.steps) {
    due_ = false;
    Save(*good_, Saving::kBeside);
  }
}

void StepLoop::Steps() {
  if (step_ == 0 && !result_.before) result_.before = EvaluateOrStop(0);
  if (result_.stopped_early || step_ >= config_.run.steps) return;
  Phase("training");
  product_speed_ =
      first() ? policy_model::MeasureProductSpeed(weights_.flat().stream(), weights_.flat().dtype())
              : 1;
  const LrOptions lr = LrOptionsOf(config_);
  for (Optimizer* each : Optimizers()) each->TakeClippedShare();  // of a warm start
  while (step_ < config_.run.steps && !result_.stopped_early) {
    Settle(/*wait=*/false);
    if (Stop()) result_.stopped_early = true;
    else OneStep(step_, LearningRate(lr, step_));
  }
  ending_ = given_up_;
  Settle(/*wait=*/true);
}

bool StepLoop::AllScoreless() const {
  return step_ > 0 && result_.rewards.scoreless_steps == step_;
}

void StepLoop::SayEqualRewards() const {
  // Where no step had a score there is nothing that more answers or other prompts would change.
  if (step_ == 0 || AllScoreless()) return;
  const RewardTally& tally = result_.rewards;
  const bool all = tally.equal_steps >= step_;
  // A few groups of a long run that differ by chance teach as little as none.
  if (!all && (tally.groups == 0 || 50 * tally.equal_groups < 49 * tally.groups)) return;
  Phase((all ? step_ == 1 ? std::string("in the only step")
                          : "in all " + std::to_string(step_) + " steps"
             : "in " + std::to_string(tally.equal_groups) + " of " + std::to_string(tally.groups) +
                   " groups of answers") +
        " the rewards told no answer from another, so " + (all ? "nothing" : "next to nothing") +
        " was learned from them: look at "
        "samples.jsonl and try the reward with `plumb reward test`; prompts that are neither "
        "always nor never solved, or more "
        "rollout.samples_per_prompt, give answers that differ");
}

LearnerResult StepLoop::Run(bool resume) {
  std::optional<Checkpoints::Found> found;
  if (resume) found = TakeUp();
  result_.first_step = step_;
  if (!Prepare(found.has_value(), resume)) {
    result_.stopped_early = true;
    End();
    return result_;
  }
  if (found) {
    checkpoints_.LoadModels(*found, Models());
    RestoreAlgorithm(found->state.algorithm_json);
    last_saved_ = step_;
  } else if (resume && !SavesStart()) {
    BeginAnew();
  }
  CheckRanks("before step " + std::to_string(step_));
  if (config_.eval.keep_best && first()) {
    result_.best = best_.emplace(BestModelFolder(checkpoints_.folder()), checkpoints_).kept();
  }
  good_ = Capture(step_);
  if (hooks_.store_state && store_.empty()) store_ = hooks_.store_state();
  TellSavePlan();
  // Before anybody else has these weights.
  if (!found && SavesStart()) Save(*good_, Saving::kNow);
  try {
    Publish(step_);
    optimizer_.SpreadWeights();
    Steps();
    optimizer_.GatherWeights();
  } catch (...) {
    SaveGoodSteps();
    throw;
  }
  // Of a run without a step there is nothing to save but a model that is new; one that found no
  // score at all does its steps again once that is mended.
  const bool nothing = AllScoreless() || (step_ == 0 && !last_saved_ &&
                                          (result_.stopped_early || !config_.model.path.empty()));
  if (nothing && step_ == 0 && !result_.stopped_early)
    Phase("no step was asked for: nothing is saved, the weights are those of " +
          config_.model.path);
  if ((last_saved_ != step_ || !saved_optimizer_) && !nothing)
    Save(Capture(step_), given_up_ ? Saving::kEnding : Saving::kNow);
  if (!result_.stopped_early) result_.after = EvaluateOrStop(step_);
  if (result_.policy.version != step_ || result_.policy.digest.empty()) Identify(step_);
  SayEqualRewards();
  for (const NamedModel& model : Models()) {
    Count(*model.optimizer);
    Sha256 hash;
    HashTrained(*model.weights, hash);
    hash.Update(MomentsDigest(*model.optimizer));
    result_.model_sha256[model.name] = hash.HexDigest();
  }
  End();
  return result_;
}

void StepLoop::End() {
  if (!given_up_) Finish();
  result_.steps = step_;
  result_.saved = last_saved_ == step_;
  Count(optimizer_);
  result_.wall_s = Elapsed();
  Sha256 weights;
  HashTrained(weights_, weights);
  result_.weights_sha256 = weights.HexDigest();
  result_.optimizer_sha256 = MomentsDigest(optimizer_);
}

}  // namespace plumb::learner
