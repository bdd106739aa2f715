// learner/loop/step_loop.h and learner_loop.h over batches that are made here: what an error, a
// stop, a kill and a resume leave of a run and of its warm start. Rows 4, 8 and 13 of
// docs/reliability.md without the other roles.
#include "learner/loop/step_loop.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <new>
#include <tuple>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "learner/loop/learner_loop.h"
#include "learner/offline/preference_objective.h"
#include "tests/learner/loop/life.h"
#include "tests/learner/loop/short_run.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using plumb::testing::TempFolder;

// Whatever ends the loop while it waits: the steps so far are a checkpoint, and the resumed run is
// the unbroken one.
TEST(StepLoopTest, AnyErrorInAWaitLeavesTheGoodSteps) {
  const LearnerResult whole = Unbroken(Recipe());
  const std::vector<std::function<void()>> errors = {
      [] { throw Error(ErrorCode::kDeadline, "nobody answered"); },
      [] { throw Error(ErrorCode::kCorruption, "damaged"); },
      [] { throw Error(ErrorCode::kInvalidArgument, "no"); }, [] { throw std::bad_alloc(); },
      [] { throw std::runtime_error("else"); }};
  for (const auto& error : errors) {
    const TempFolder folder;
    Life life(Recipe(), folder / "c");
    life.on_next = [&](int64_t step) {
      if (step == 4) error();
    };
    EXPECT_ANY_THROW(life.Run(false));
    EXPECT_EQ(life.NewestStep(), 4);
    EXPECT_TRUE(
        HasLine(life.said, "saved the 4 steps since the start; --resume goes on at step 4"));
    Life next(Recipe(), folder / "c");
    ExpectSame(next.Run(true), whole);
    EXPECT_EQ(next.lines, (std::vector<int64_t>{4, 5}));
  }
}

// Steps that trained nothing are no good steps: mended, they are answered and trained.
TEST(StepLoopTest, ThreeStepsWithoutAScoreGoBackToTheLastThatHadOne) {
  const LearnerResult whole = Unbroken(Recipe());
  for (const int64_t checkpoint_every : {0, 4}) {  // 4: due in the middle of them
    configs::Config config = Recipe();
    config.run.checkpoint_every = checkpoint_every;
    const TempFolder folder;
    Life life(config, folder / "c");
    life.scores_until = 3;
    try {
      life.Run(false);
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnavailable) << e.what();
    }
    EXPECT_EQ(life.lines, (std::vector<int64_t>{0, 1, 2, 3, 4}));
    EXPECT_EQ(life.NewestStep(), 3);
    Life mended(config, folder / "c");
    ExpectSame(mended.Run(true), whole);
    EXPECT_EQ(mended.lines, (std::vector<int64_t>{3, 4, 5}));
  }
}

TEST(StepLoopTest, AStepWhoseEvaluationFailsHasItsLineAndItsCheckpoint) {
  configs::Config config = Recipe();
  config.data.eval = "held out";
  config.eval.every = 2;
  const LearnerResult whole = Unbroken(config);
  const TempFolder folder;
  Life life(config, folder / "c");
  life.on_evaluate = [](int64_t version) {
    if (version == 4) throw Error(ErrorCode::kUnavailable, "the judge is away");
  };
  EXPECT_THROW(life.Run(false), Error);
  EXPECT_EQ(life.lines, (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(life.NewestStep(), 4);
  ExpectSame(Life(config, folder / "c").Run(true), whole);
}

TEST(StepLoopTest, AStepWhoseLineCannotBeWrittenIsSavedAndThatIsSaid) {
  const LearnerResult whole = Unbroken(Recipe());
  const TempFolder folder;
  Life life(Recipe(), folder / "c");
  life.hooks.step = [](int64_t step, std::map<std::string, double>&) {
    if (step == 2) throw Error(ErrorCode::kNoSpace, "full", "metrics.jsonl");
  };
  EXPECT_THROW(life.Run(false), Error);
  EXPECT_EQ(life.NewestStep(), 3);
  EXPECT_TRUE(HasLine(life.said, "step 2 was made, but its metrics could not be written"));
  ExpectSame(Life(Recipe(), folder / "c").Run(true), whole);
}

// Half a step is no checkpoint: here its update is made and its weights are not published.
TEST(StepLoopTest, AnErrorBetweenAnUpdateAndTheEndOfItsStepSavesNoHalfStep) {
  const TempFolder folder;
  Life life(Recipe(), folder / "c");
  life.on_publish = [](int64_t version) {
    if (version == 4) throw Error(ErrorCode::kIo, "no way out");
  };
  EXPECT_THROW(life.Run(false), Error);
  EXPECT_EQ(life.NewestStep(), -1);
  EXPECT_TRUE(HasLine(life.said,
                      "between two updates of a step: the 3 steps since the start were not "
                      "saved"));
  Life next(Recipe(), folder / "c");
  int anew = 0;
  next.hooks.anew = [&] { ++anew; };
  ExpectSame(next.Run(true), Unbroken(Recipe()));
  EXPECT_EQ(next.lines, (std::vector<int64_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_TRUE(HasLine(next.said, "there is no checkpoint yet: the run begins anew at step 0"));
  EXPECT_EQ(anew, 1) << "the store has to hear of it";
}

// The store is away when the run ends: what it told last is what the checkpoint says of it.
TEST(StepLoopTest, ASaveAtTheEndAsksNobodyWhoMayBeGone) {
  for (const bool stopped : {false, true}) {
    const TempFolder folder;
    Life life(Recipe(), folder / "c");
    bool gone = false;
    life.hooks.store_state = [&]() -> std::string {
      EXPECT_FALSE(gone) << "asked";
      return "as it was at the start";
    };
    life.hooks.checkpointed = [&](int64_t) { EXPECT_FALSE(gone) << "told"; };
    life.on_next = [&](int64_t step) {
      if (step != 4) return;
      gone = true;
      life.stop = stopped;
      throw Error(ErrorCode::kUnavailable, "the store is away");
    };
    if (stopped) {
      const LearnerResult result = life.Run(false);
      EXPECT_TRUE(result.stopped_early);
      EXPECT_EQ(result.steps, 4);
      EXPECT_FALSE(result.after);
    } else {
      EXPECT_THROW(life.Run(false), Error);
    }
    EXPECT_EQ(life.NewestStep(), 4);
    Life next(Recipe(), folder / "c");
    std::string then;
    next.hooks.resumed = [&](int64_t, const std::string& state) { then = state; };
    ExpectSame(next.Run(true), Unbroken(Recipe()));
    EXPECT_EQ(then, "as it was at the start");
  }
}

// A stop hides no error that has nothing to do with it.
TEST(StepLoopTest, AnErrorOfAnotherKindIsNoStop) {
  const TempFolder folder;
  Life life(Recipe(), folder / "c");
  life.on_next = [&](int64_t step) {
    life.stop = step == 2;
    if (step == 2) throw Error(ErrorCode::kCorruption, "damaged");
  };
  EXPECT_THROW(life.Run(false), Error);
  EXPECT_EQ(life.NewestStep(), 2);
}

std::filesystem::file_time_type Written(const std::string& path) {
  return std::filesystem::last_write_time(path);
}

TEST(StepLoopTest, AFinishedRunThatIsResumedRewritesNothing) {
  configs::Config config = Recipe();
  config.data.eval = "held out";
  config.checkpoint.optimizer = configs::KeepOptimizer::kAlways;
  const TempFolder folder;
  const LearnerResult whole = Life(config, folder / "c").Run(false);
  const std::string manifest = folder / "c/step-00000006/manifest.json";
  const auto written = Written(manifest);
  const pid_t child = fork();
  if (child == 0) {  // and dies where it would be about to
    ArmCrashPointForTest("before_checkpoint");
    Life(config, folder / "c").Run(true);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "it saved again";
  Life again(config, folder / "c");
  const LearnerResult result = again.Run(true);
  ExpectSame(result, whole);
  EXPECT_EQ(result.after->accuracy, whole.after->accuracy);
  EXPECT_EQ(Written(manifest), written);
  EXPECT_TRUE(again.lines.empty());
}

// Rewards that tell no answer from another: counted, over all lives of the run, and said at its
// end.
TEST(StepLoopTest, ARunWhoseEveryRewardWasEqualSaysSo) {
  struct Case {
    std::string algorithm, advantage;
    std::function<double(int64_t, double)> reward;
    bool said;
  };
  const auto same = [](int64_t, double) { return 0.5; };
  const auto by_step = [](int64_t step, double) { return static_cast<double>(step); };
  const auto once = [](int64_t step, double r) { return step == 5 ? r : 0.5; };
  const std::vector<Case> cases = {{"grpo", "group", same, true},  {"grpo", "group", by_step, true},
                                   {"grpo", "group", once, false}, {"grpo", "batch", same, true},
                                   {"ppo", "group", same, true},   {"ppo", "group", once, false}};
  for (const Case& c : cases) {
    configs::Config config = Recipe();
    config.algorithm.name = configs::FromName<configs::AlgorithmName>(c.algorithm).value();
    config.algorithm.advantage = configs::FromName<configs::Advantage>(c.advantage).value();
    const TempFolder folder;
    LearnerResult result;
    for (const int64_t until : {2, 6}) {
      Life life(config, folder / "c");
      life.reward = c.reward;
      life.on_next = [&](int64_t step) { life.stop = step + 1 == until && until < 6; };
      result = life.Run(until == 6);
      EXPECT_EQ(HasLine(life.said, "the rewards told no answer from another"), until == 2 || c.said)
          << c.algorithm << c.advantage;
    }
    EXPECT_EQ(result.rewards.equal_steps, c.said ? 6 : 5) << c.algorithm << c.advantage;
    // Groups tell something only where their answers are compared with each other.
    const bool within = c.algorithm == "grpo" && c.advantage == "group";
    EXPECT_EQ(result.rewards.groups, within ? 12 : 0) << c.algorithm << c.advantage;
    EXPECT_EQ(result.rewards.equal_groups, !within ? 0 : c.said ? 12 : 10);
    EXPECT_EQ(result.rewards.scoreless_steps, 0);
  }
}

TEST(StepLoopTest, AlmostOnlyEqualRewardsAreSaidToo) {
  for (const auto& [steps, said] : {std::pair(40, false), std::pair(60, true)}) {
    configs::Config config = Recipe();
    config.run.steps = steps;
    const TempFolder folder;
    Life life(config, folder / "c");
    life.reward = [](int64_t step, double r) { return step == 5 ? r : 0.5; };
    const RewardTally tally = life.Run(false).rewards;
    EXPECT_EQ(tally.groups - tally.equal_groups, 2) << "2.5 and 1.7 %";
    EXPECT_EQ(HasLine(life.said, "groups of answers the rewards told no answer from another"), said)
        << steps;
  }
}

// Answers without a score are no reason for other prompts or more answers.
TEST(StepLoopTest, ARunWithoutAnyScoreIsNotToldOfEqualRewards) {
  configs::Config config = Recipe();
  config.run.steps = 2;
  for (const int64_t scored : {0, 1}) {
    const TempFolder folder;
    Life life(config, folder / "c");
    life.reward = [](int64_t, double) { return 0.5; };
    life.scores_until = scored;
    const LearnerResult result = life.Run(false);
    EXPECT_EQ(result.rewards.equal_steps, 2);
    EXPECT_EQ(result.rewards.scoreless_steps, 2 - scored);
    EXPECT_EQ(HasLine(life.said, "the rewards told no answer from another"), scored > 0);
  }
}

// What a checkpoint holds of the optimizer, and what a longer run makes of it.
TEST(StepLoopTest, MomentsStayUntilTheRunHasDoneItsSteps) {
  using configs::KeepOptimizer;
  configs::Config config = Recipe();
  config.run.checkpoint_every = 2;
  config.checkpoint.background = false;  // the folder is looked into in between
  configs::Config longer = config;
  longer.run.steps = 9;
  const LearnerResult whole = Unbroken(longer);
  for (const auto& [keep, at_4, at_6] : {std::tuple(KeepOptimizer::kAlways, true, true),
                                         std::tuple(KeepOptimizer::kUntilEnd, true, false),
                                         std::tuple(KeepOptimizer::kNever, false, false)}) {
    config.checkpoint.optimizer = longer.checkpoint.optimizer = keep;
    for (const std::string algorithm : {"grpo", "ppo"}) {
      config.algorithm.name = longer.algorithm.name =
          configs::FromName<configs::AlgorithmName>(algorithm).value();
      const TempFolder folder;
      Life life(config, folder / "c");
      life.on_next = [&](int64_t step) {
        if (step != 5) return;
        EXPECT_EQ(life.NewestStep(), 4);
        EXPECT_EQ(life.checkpoints.FindNewest()->state.moments, at_4) << algorithm;
      };
      const LearnerResult ended = life.Run(false);
      EXPECT_EQ(life.NewestStep(), 6);
      EXPECT_EQ(life.checkpoints.FindNewest()->state.moments, at_6) << algorithm;
      EXPECT_EQ(RealFileSystem().Exists(folder / "c/step-00000006/optimizer.safetensors"), at_6)
          << "nothing to keep of a float32 model";

      Life idle(config, folder / "c");
      const LearnerResult again = idle.Run(true);  // nothing left to do: nothing to be said
      EXPECT_FALSE(HasLine(idle.said, "moments")) << algorithm;
      EXPECT_EQ(again.optimizer_sha256, ended.optimizer_sha256);
      EXPECT_EQ(again.weights_sha256, ended.weights_sha256);
      EXPECT_EQ(again.model_sha256, ended.model_sha256);

      Life next(longer, folder / "c");
      const LearnerResult result = next.Run(true);
      EXPECT_EQ(result.steps, 9);
      EXPECT_EQ(HasLine(next.said, "holds no moments of the optimizer: they begin anew"), !at_6);
      EXPECT_EQ(HasLine(next.said, "checkpoint.optimizer = \"always\""), !at_6);
      if (algorithm == "grpo") {
        EXPECT_EQ(result.weights_sha256 == whole.weights_sha256, at_6);
      }
      EXPECT_EQ(next.lines, (std::vector<int64_t>{6, 7, 8}));
    }
  }
}

// Killed before the first checkpoint: nothing is on disk, and the next life ends as the unbroken.
TEST(StepLoopTest, TheStartIsNoCheckpointUnlessItWasTrained) {
  configs::Config config = Recipe();
  config.run.checkpoint_every = 4;
  const LearnerResult whole = Unbroken(config);
  const TempFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    ArmCrashPointForTest("before_update", 4);
    Life(config, folder / "c").Run(false);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(RealFileSystem().List(folder / "c").empty());
  Life next(config, folder / "c");
  ExpectSame(next.Run(true), whole);

  const TempFolder stopped;
  Life idle(config, stopped / "c");
  idle.stop = true;
  EXPECT_EQ(idle.Run(false).steps, 0);
  EXPECT_EQ(idle.NewestStep(), -1) << "nothing was done";
  configs::Config none = config;
  none.run.steps = 0;
  Life made(none, stopped / "c");
  EXPECT_TRUE(made.Run(false).saved);
  EXPECT_EQ(made.NewestStep(), 0) << "a new model: what such a run is for";
  none.model.path = "somewhere";  // its weights lie there
  Life known(none, stopped / "known");
  EXPECT_FALSE(known.Run(false).saved);
  EXPECT_EQ(known.NewestStep(), -1);
}

TEST(StepLoopTest, WhatWillBeSavedIsSaidBeforeTheFirstStepAndWhatIsSavedAsItIs) {
  configs::Config config = Recipe();
  config.run.checkpoint_every = 2;
  const TempFolder folder;
  Life life(config, folder / "c");
  std::vector<std::string> log;
  life.hooks.plan = [&](const SavePlan& plan) {
    EXPECT_EQ(plan.between, 2);
    EXPECT_EQ(plan.each, 3 * plan.last) << "float32: weights, and two moments";
    log.push_back("plan");
  };
  int64_t bytes = 0;
  life.hooks.saving = [&](const std::string& what, int64_t size) {
    log.push_back(what);
    bytes = size;
  };
  life.hooks.saved = [&](int64_t size, double seconds, double) {
    EXPECT_EQ(size, bytes);
    EXPECT_GT(seconds, 0);
    log.push_back("saved");
  };
  life.on_next = [&](int64_t step) {
    if (step == 0) {
      EXPECT_TRUE(HasLine(life.said, "a checkpoint holds ")) << life.said.back();
    }
  };
  life.Run(false);
  EXPECT_TRUE(HasLine(life.said, "; free: "));
  EXPECT_EQ(log, (std::vector<std::string>{"plan", "step 2", "saved", "step 4", "saved", "step 6",
                                           "saved"}));
}

// Two steps, both without a score: the run comes to its end, saves nothing, and does them again.
TEST(StepLoopTest, ARunThatFoundNoScoreIsDoneAgain) {
  configs::Config config = Recipe();
  config.run.steps = 2;
  const TempFolder folder;
  Life life(config, folder / "c");
  life.scores_until = 0;
  const LearnerResult result = life.Run(false);
  EXPECT_EQ(result.rewards.scoreless_steps, 2);
  EXPECT_FALSE(result.saved);
  EXPECT_EQ(life.NewestStep(), -1);
  Life mended(config, folder / "c");
  ExpectSame(mended.Run(true), Unbroken(config));
  EXPECT_EQ(mended.lines, (std::vector<int64_t>{0, 1}));
}

configs::Config WarmRecipe(const std::string& algorithm) {
  configs::Config config = Recipe();
  config.run.steps = 2;
  config.algorithm.name = configs::FromName<configs::AlgorithmName>(algorithm).value();
  config.algorithm.kl_coef = 0.1;  // so that a reference is kept
  config.sft.steps = 12;
  config.sft.batch = 8;
  config.sft.learning_rate = 3e-3;
  config.sft.eval_every = 5;
  return config;
}

Digest ReferenceIn(const std::string& folder) {
  policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  weights.Load(folder + "/reference");
  return weights.ComputeDigest();
}

TEST(WarmStartTest, StoppedAnywhereAndResumedEqualsUnbroken) {
  for (const std::string algorithm : {"grpo", "ppo"}) {
    const configs::Config config = WarmRecipe(algorithm);
    const TempFolder unbroken;
    const LearnerResult whole = Life(config, unbroken / "c").Run(false);
    const TempFolder folder;
    for (const int64_t at : {1, 6, 11}) {  // one life after the other
      Life life(config, folder / "c");
      std::vector<int64_t> updates;
      life.hooks.sft_step = [&](const SftStep& step) {
        updates.push_back(step.step);
        life.stop = step.step + 1 == at;
      };
      life.on_publish = [](int64_t) { ADD_FAILURE() << "half a warm start was published"; };
      const LearnerResult result = life.Run(at > 1);
      EXPECT_TRUE(result.stopped_early);
      EXPECT_EQ(result.steps, 0);
      ASSERT_TRUE(result.sft);
      EXPECT_EQ(result.sft->steps, at);
      EXPECT_EQ(updates.front(), at == 1 ? 0 : at == 6 ? 1 : 6) << "it goes on where it stood";
      EXPECT_EQ(life.NewestStep(), -1);
      EXPECT_TRUE(HasLine(life.said, "stopped after " + std::to_string(at) + " of 12 updates"));
      EXPECT_TRUE(life.lines.empty());
    }
    Life last(config, folder / "c");
    const LearnerResult result = last.Run(true);
    ExpectSame(result, whole);
    EXPECT_EQ(result.sft->heldout_first, whole.sft->heldout_first);
    EXPECT_EQ(result.sft->heldout_last, whole.sft->heldout_last);
    EXPECT_EQ(ReferenceIn(folder / "c"), ReferenceIn(unbroken / "c"))
        << "KL is measured against a half-made model";
    for (const std::string& name : RealFileSystem().List(folder / "c"))
      EXPECT_FALSE(name.starts_with("warm-start")) << name;
  }
}

// Killed at each named place of the warm start and behind it, and in the middle of writing: the
// next life goes on or begins anew.
TEST(WarmStartTest, KilledAnywhereAndResumedEqualsUnbroken) {
  configs::Config config = WarmRecipe("grpo");
  const LearnerResult whole = Unbroken(config);
  config.run.checkpoint_every = 5;       // of the warm start, too
  config.checkpoint.background = false;  // what is there at each place is known then
  for (const auto& [place, visit, anew] :
       std::vector<std::tuple<std::string, int, bool>>{{"before_warm_start_checkpoint", 1, true},
                                                       {"checkpoint_written", 1, true},
                                                       {"after_warm_start_checkpoint", 1, false},
                                                       {"before_warm_start_checkpoint", 2, false},
                                                       {"checkpoint_in_place", 2, false},
                                                       {"after_warm_start_checkpoint", 2, false},
                                                       {"before_checkpoint", 1, false},
                                                       {"checkpoint_written", 3, false}}) {
    const TempFolder folder;
    const pid_t child = fork();
    if (child == 0) {
      ArmCrashPointForTest(place, visit);
      Life(config, folder / "c").Run(false);
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << place << visit;
    Life life(config, folder / "c");
    ExpectSame(life.Run(true), whole);
    EXPECT_EQ(HasLine(life.said, "the warm start begins anew"), anew) << place << visit;
    EXPECT_EQ(HasLine(life.said, "the warm start goes on behind"), !anew) << place << visit;
  }
}

TEST(WarmStartTest, AnErrorInItLeavesItsUpdates) {
  const configs::Config config = WarmRecipe("grpo");
  const LearnerResult whole = Unbroken(config);
  const TempFolder folder;
  Life life(config, folder / "c");
  int updates = 0;
  life.hooks.stop = [&]() -> bool {  // asked once an update
    if (++updates == 8) throw std::bad_alloc();
    return false;
  };
  EXPECT_THROW(life.Run(false), std::bad_alloc);
  EXPECT_TRUE(HasLine(life.said, "saved 8 updates of the warm start"));
  Life next(config, folder / "c");
  ExpectSame(next.Run(true), whole);
  EXPECT_TRUE(HasLine(next.said, "the warm start goes on behind 8 of 12 updates"));
}

TEST(WarmStartTest, ACheckpointOfAnEarlierVersionBehindHalfAWarmStartIsRefused) {
  const configs::Config config = WarmRecipe("grpo");
  for (const int64_t step : {0, 2}) {
    const TempFolder folder;
    Life old(config, folder / "c");
    Optimizer optimizer(old.weights, config.optimizer);
    old.checkpoints.KeepReference(false, old.weights);
    old.checkpoints.Save({.step = step,
                          .policy = {.version = step, .digest = old.weights.ComputeDigest()},
                          .seed = config.run.seed,
                          .state_json = "{\"sft\":{\"steps\":5,\"tokens\":9,\"heldout_first\":1.5,"
                                        "\"heldout_last\":1.5,\"flat\":false}}"},
                         old.weights, optimizer);
    Life life(config, folder / "c");
    if (step == 0) {
      try {
        life.Run(true);
        ADD_FAILURE() << "it went on without the rest of the warm start";
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kConflict);
        EXPECT_NE(e.message().find("after 5 of 12 updates"), std::string::npos) << e.what();
        EXPECT_NE(e.message().find("--overwrite"), std::string::npos) << e.what();
      }
    } else {
      EXPECT_EQ(life.Run(true).steps, 2);
      EXPECT_TRUE(HasLine(life.said, "stopped the warm start of this run after 5 of 12 updates"));
    }
  }
}

}  // namespace
}  // namespace plumb::learner
