// plumb data mine | rescore, and training from what they made: a toy GRPO run, its pairs, DPO and
// KTO on them.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "replay/store/store.h"
#include "run/session/rescoring.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;
using testing::RunPlumb;

// Trains on the dataset of a store, with a model of the toy run's shape.
std::vector<std::string> DpoLine(const std::string& out, const std::string& store,
                                 const std::string& model, const std::vector<std::string>& more) {
  RealFileSystem().WriteFileAtomic(
      out + ".toml", "[run]\nthreads = 1\nsteps = 12\n[model]\npath = \"" + model +
                         "\"\n[data]\ntrain = \"" + store +
                         "\"\n[algorithm]\nname = \"dpo\"\n[preference]\nbatch = 4\nheldout = 4\n"
                         "[optimizer]\nlearning_rate = 3e-3\n");
  std::vector<std::string> line = {"train", out + ".toml", "--out", out, "--quiet"};
  line.insert(line.end(), more.begin(), more.end());
  return line;
}

nlohmann::json Summary(const std::string& run) {
  return nlohmann::json::parse(testing::Read(run + "/summary.json"));
}

TEST(ReplayCommandsTest, RolloutsBecomePairsThatDpoAndKtoLearnFrom) {
  const TempFolder temp;
  const std::string grpo = temp / "grpo", store = grpo + "/store", pairs = temp / "pairs";
  const auto trained = testing::Train(grpo, 8, {"--set", "replay.keep_steps=-1", "--quiet"});
  ASSERT_EQ(trained.code, 0) << trained.err;

  const auto mined =
      RunPlumb({"data", "mine", "--store", store, "--into", pairs, "--per-group", "2"});
  ASSERT_EQ(mined.code, 0) << mined.err;
  // 8 steps of 4 prompts, none trimmed
  EXPECT_TRUE(Has(mined.out, "groups: 32 read")) << mined.out;
  const auto again =
      RunPlumb({"data", "mine", "--store", store, "--into", pairs, "--per-group", "2"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_TRUE(Has(again.out, "the same as before")) << again.out;
  const auto none = RunPlumb(
      {"data", "mine", "--store", store, "--into", pairs, "--dataset", "far", "--margin", "100"});
  EXPECT_EQ(none.code, 2);
  EXPECT_TRUE(Has(none.err, "closer than the margin")) << none.err;
  EXPECT_FALSE(Has(none.err, "replay.keep_steps")) << none.err;
  EXPECT_EQ(
      RunPlumb({"data", "mine", "--store", store, "--into", temp / "new", "--margin", "100"}).code,
      2);
  EXPECT_FALSE(std::filesystem::exists(temp / "new")) << "no empty store";
  EXPECT_TRUE(std::filesystem::exists(pairs)) << "it was there before";

  uint64_t rows = 0;
  {
    replay::StoreOptions how;
    how.read_only = true;
    const auto made = replay::Store::Open(pairs, how);
    rows = made->PreferenceCount("mined");
    const auto from = replay::Store::Open(store, how);
    for (const PreferenceRecord& record : made->ReadPreferences("mined", 0, rows)) {
      const auto about = nlohmann::json::parse(record.extra_json);
      const auto group = from->Read(Purpose::kTrain, about["lease_id"].get<uint64_t>())->group;
      const Trajectory& chosen = group.trajectories[about["chosen_sample"].get<size_t>()];
      const Trajectory& rejected = group.trajectories[about["rejected_sample"].get<size_t>()];
      EXPECT_GT(chosen.reward, rejected.reward);
      EXPECT_EQ(about["policy_digest"], group.policy.digest);
      EXPECT_TRUE(Has(about["reward_digest"], "short:")) << about;
      std::vector<int32_t> whole = record.prompt_tokens;
      whole.insert(whole.end(), record.chosen_tokens.begin(), record.chosen_tokens.end());
      EXPECT_EQ(whole, chosen.tokens);
    }
  }
  ASSERT_GE(rows, 12u);

  // DPO on them: nothing is generated, and it starts from the run's last weights.
  const std::string model = grpo + "/checkpoints/step-00000008/model";
  const auto dpo = RunPlumb(DpoLine(temp / "dpo", pairs, model, {}));
  ASSERT_EQ(dpo.code, 0) << dpo.err;
  const auto summary = Summary(temp / "dpo");
  EXPECT_EQ(summary["counters"]["pairs"].get<uint64_t>(), rows - 4);
  EXPECT_NEAR(summary["eval"]["before"]["loss"].get<double>(), std::log(2.0), 1e-6);
  const auto steps = testing::Lines(temp / "dpo" + "/metrics.jsonl");
  EXPECT_LT(steps.back()["dpo/loss"].get<double>(), steps.front()["dpo/loss"].get<double>());
  EXPECT_GT(steps.back()["dpo/margin"].get<double>(), 0);
  // A file of them is the same data: a run on it is the same run, number by number.
  const auto exported =
      RunPlumb({"data", "export", temp / "pairs.jsonl", "--store", pairs, "--dataset", "mined"});
  const std::string all = std::to_string(rows);
  EXPECT_TRUE(
      Has(exported.out, all + " of " + all + " rows are read back as the very same records"))
      << exported.out;
  const auto of_file = RunPlumb(DpoLine(temp / "of_file", temp / "pairs.jsonl", model, {}));
  ASSERT_EQ(of_file.code, 0) << of_file.err;
  EXPECT_EQ(Summary(temp / "of_file")["weights_sha256"], summary["weights_sha256"]);
  const auto steps_of_file = testing::Lines(temp / "of_file" + "/metrics.jsonl");
  ASSERT_EQ(steps_of_file.size(), steps.size());
  for (size_t i = 0; i < steps.size(); ++i)
    EXPECT_EQ(steps_of_file[i]["dpo/loss"], steps[i]["dpo/loss"]) << i;
  const auto answers = RunPlumb({"data", "export", "-", "--store", store, "--rows", "rollouts"});
  EXPECT_TRUE(Has(answers.err, "rows are read back as the very same answers")) << answers.err;
  // Held-out evaluations are no training data: left out with a word, and alone when asked for.
  EXPECT_TRUE(Has(answers.err, "read 32 = written 32")) << answers.err;
  EXPECT_TRUE(Has(answers.err, "groups of held-out evaluations left out: --eval")) << answers.err;
  const auto heldout =
      RunPlumb({"data", "export", "-", "--store", store, "--rows", "rollouts", "--eval"});
  ASSERT_EQ(heldout.code, 0) << heldout.err;
  EXPECT_TRUE(Has(heldout.err, "32 groups of training left out")) << heldout.err;
  const auto leases = [](const std::string& text) {
    std::set<uint64_t> ids;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      ids.insert(nlohmann::json::parse(line)["lease"].get<uint64_t>());
    return ids;
  };
  const std::set<uint64_t> trained_on = leases(answers.out), held_out = leases(heldout.out);
  {
    replay::StoreOptions how;
    how.read_only = true;
    const auto from = replay::Store::Open(store, how);
    constexpr uint64_t kAll = std::numeric_limits<uint64_t>::max();
    const auto train = from->Ids(Purpose::kTrain, 0, kAll),
               eval = from->Ids(Purpose::kEval, 0, kAll);
    EXPECT_EQ(trained_on, std::set<uint64_t>(train.begin(), train.end()));
    EXPECT_EQ(held_out, std::set<uint64_t>(eval.begin(), eval.end()));
    EXPECT_FALSE(held_out.empty());
  }
  EXPECT_EQ(RunPlumb({"data", "export", "-", "--store", store, "--eval"}).code, 2);
  const auto kto = RunPlumb(DpoLine(temp / "kto", pairs, model, {"--set", "preference.loss=kto"}));
  ASSERT_EQ(kto.code, 0) << kto.err;
  EXPECT_EQ(Summary(temp / "kto")["counters"]["completions"].get<uint64_t>(), 2 * (rows - 4));
  EXPECT_NEAR(Summary(temp / "kto")["eval"]["before"]["loss"].get<double>(), 0.5, 1e-6);
  const auto wrong =
      RunPlumb(DpoLine(temp / "wrong", pairs, model, {"--set", "data.dataset=other"}));
  EXPECT_EQ(wrong.code, 2);
  EXPECT_TRUE(Has(wrong.err, "'other' (data.dataset); it has: mined (")) << wrong.err;
}

TEST(ReplayCommandsTest, ARunThatKeepsNoRolloutsIsSaidToAndNothingIsMade) {
  const TempFolder temp;
  const auto trained = testing::Train(temp / "run", 2, {"--quiet"});
  ASSERT_EQ(trained.code, 0) << trained.err;
  const auto mined =
      RunPlumb({"data", "mine", "--store", temp / "run/store", "--into", temp / "new/pairs"});
  EXPECT_EQ(mined.code, 2) << mined.out;
  EXPECT_TRUE(
      Has(mined.err, "keeps no rollouts behind its checkpoint: train with replay.keep_steps = -1"))
      << mined.err;
  EXPECT_FALSE(std::filesystem::exists(temp / "new"));
  const auto exported = RunPlumb(
      {"data", "export", temp / "rows.jsonl", "--store", temp / "run/store", "--rows", "rollouts"});
  EXPECT_EQ(exported.code, 3) << exported.out;
  EXPECT_TRUE(Has(exported.err,
                  "keeps no rollouts behind its checkpoint: train with replay.keep_steps = -1"))
      << exported.err;
  EXPECT_TRUE(Has(exported.err, "groups of held-out evaluations left out: --eval")) << exported.err;
  EXPECT_FALSE(std::filesystem::exists(temp / "rows.jsonl"));
  const auto empty =
      RunPlumb({"data", "mine", "--store", temp / "new/none", "--into", temp / "new/none"});
  EXPECT_EQ(empty.code, 2) << empty.out;
  EXPECT_TRUE(Has(empty.err, "no rollouts were ever stored here")) << empty.err;
  EXPECT_FALSE(std::filesystem::exists(temp / "new"));
}

TEST(ReplayCommandsTest, NewScoresStandBesideTheOldAndPairsMayFollowThem) {
  const TempFolder temp;
  const std::string grpo = temp / "grpo", store = grpo + "/store", recipe = temp / "long.toml";
  ASSERT_EQ(testing::Train(grpo, 3, {"--set", "replay.keep_steps=-1", "--quiet"}).code, 0);
  // The opposite of what the run rewarded: long answers.
  RealFileSystem().WriteFileAtomic(recipe,
                                   "[[reward.parts]]\nname = "
                                   "\"short\"\nkind = \"length\"\nweight = -1.0\n"
                                   "target_tokens = 1\nmax_tokens = 12\n");
  const auto first = RunPlumb({"data", "rescore", "--store", store, recipe});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_TRUE(Has(first.out, "groups: 12 read = 12 scored + 0 scored before + 0 failed"))
      << first.out;
  const auto second = RunPlumb({"data", "rescore", "--store", store, recipe});
  EXPECT_TRUE(Has(second.out, "0 scored + 12 scored before")) << second.out;
  const std::string name = first.out.substr(first.out.rfind("score ") + 6, 32);

  const auto by_old =
      RunPlumb({"data", "mine", "--store", store, "--into", temp / "pairs", "--dataset", "old"});
  const auto by_new = RunPlumb({"data", "mine", "--store", store, "--into", temp / "pairs",
                                "--dataset", "new", "--score", name.substr(0, 6)});
  ASSERT_EQ(by_old.code, 0) << by_old.err;
  ASSERT_EQ(by_new.code, 0) << by_new.err;
  {
    replay::StoreOptions how;
    how.read_only = true;
    const auto groups = replay::Store::Open(store, how),
               pairs = replay::Store::Open(temp / "pairs", how);
    EXPECT_TRUE(groups->Verify().problems.empty());
    for (const PreferenceRecord& r : pairs->ReadPreferences("new", 0, 100)) {
      const auto about = nlohmann::json::parse(r.extra_json);
      EXPECT_EQ(about["score"], name);
      EXPECT_GT(about["chosen_reward"].get<double>(), about["rejected_reward"].get<double>());
      EXPECT_GT(r.chosen_tokens.size(), r.rejected_tokens.size());  // the new score likes length
      // What was stored with the group is as it was.
      const auto group = groups->Read(Purpose::kTrain, about["lease_id"].get<uint64_t>())->group;
      EXPECT_EQ(group.trajectories[0].rewards.size(), 2u);
    }
  }
  EXPECT_EQ(RunPlumb({"data", "mine", "--store", store, "--into", temp / "pairs", "--dataset", "x",
                      "--score", "zzz"})
                .code,
            2);
}

TEST(ReplayCommandsTest, FailuresAreCountedAndTriedAgain) {
  const TempFolder temp;
  const std::string grpo = temp / "grpo";
  ASSERT_EQ(testing::Train(grpo, 2, {"--set", "replay.keep_steps=-1", "--quiet"}).code, 0);
  replay::StoreOptions how;
  how.run_id = "copy";
  const auto store = replay::Store::Open(temp / "copy", how);
  {
    replay::StoreOptions old;
    old.read_only = true;
    const auto from = replay::Store::Open(grpo + "/store", old);
    for (uint64_t id = 0; id < 8; ++id) {
      TrajectoryGroup group = from->Read(Purpose::kTrain, id)->group;
      group.run_id = "copy";
      group.lease.prompt_sum = 0;  // the copy has no prompts: they come along
      // nothing to compare with: the rule fails
      if (id % 4 == 3) group.lease.prompt.ground_truth.clear();
      ASSERT_EQ(store->Insert(group), InsertResult::kInserted);
    }
  }
  configs::RewardConfig answer;
  answer.parts = {{.name = "correct", .kind = "answer"}};
  reward::GroupScorer failing(answer);
  for (int64_t already : {0, 6}) {  // the second call tries the failed ones again, and no other
    const RescoreReport report =
        RescoreStore(*store, failing, answer, Purpose::kTrain, [] { return false; });
    EXPECT_EQ(report.groups, 8);
    EXPECT_EQ(report.already, already);
    EXPECT_EQ(report.scored, 6 - already);
    EXPECT_EQ(report.failed, 2);
    ASSERT_EQ(report.failures.size(), 1u);
    EXPECT_TRUE(Has(report.failures.begin()->first, "ground truth"))
        << report.failures.begin()->first;
  }
  configs::RewardConfig works;
  works.parts = {{.name = "short", .kind = "length", .target_tokens = 1, .max_tokens = 12}};
  reward::GroupScorer scorer(works);
  const RescoreReport stopped =
      RescoreStore(*store, scorer, works, Purpose::kTrain, [] { return true; });
  EXPECT_TRUE(stopped.stopped);
  EXPECT_EQ(stopped.scored, 0);
  const RescoreReport whole =
      RescoreStore(*store, scorer, works, Purpose::kTrain, [] { return false; });
  EXPECT_EQ(whole.scored, 8);
  EXPECT_EQ(whole.answers, 32);
  // the stored score is untouched
  EXPECT_EQ(store->Read(Purpose::kTrain, 0)->group.trajectories[0].rewards.size(), 2u);
  works.parts[0].weight = 2;  // other weights are another score
  EXPECT_NE(ScoreIdentity(reward::GroupScorer(works), works).first, whole.name);
  EXPECT_EQ(store->ScoreNames().size(), 2u);
}

// What was never generated gets no other score either, however a function would pay for an empty
// answer.
TEST(ReplayCommandsTest, AnswersThatWereNeverGeneratedAreNotScoredAgain) {
  const TempFolder temp;
  replay::StoreOptions how;
  how.run_id = "run";
  const auto store = replay::Store::Open(temp / "store", how);
  for (uint64_t id = 0; id < 3; ++id) {
    TrajectoryGroup group;
    group.run_id = "run";
    group.lease = {
        .lease_id = id, .num_samples = 2, .prompt = {.dataset = "train", .text = "1+1="}};
    group.policy = {0, "d"};
    for (uint32_t s = 0; s < 2; ++s) {
      Trajectory t{.sample = s,
                   .tokens = {1, 2},
                   .segments = {{Origin::kPrompt, 0, 1}, {Origin::kPolicy, 1, 2}},
                   .loss_mask = {0, 1},
                   .logprobs = {0, -1},
                   .policy_versions = {-1, 0},
                   .completion = "2",
                   .scored = true};
      if (id == 2 || (id == 1 && s == 0)) {
        t.tokens = {1};
        t.segments = {{Origin::kPrompt, 0, 1}, {Origin::kPolicy, 1, 1}};
        t.loss_mask = {0}, t.logprobs = {0}, t.policy_versions = {-1};
        t.finish = FinishReason::kAborted;
        t.completion.clear();
      }
      group.trajectories.push_back(std::move(t));
    }
    ASSERT_EQ(store->Insert(group), InsertResult::kInserted);
  }
  configs::RewardConfig works;
  works.parts = {{.name = "short", .kind = "length", .target_tokens = 1, .max_tokens = 12}};
  reward::GroupScorer scorer(works);
  const RescoreReport report =
      RescoreStore(*store, scorer, works, Purpose::kTrain, [] { return false; });
  EXPECT_EQ(report.scored, 2);
  EXPECT_EQ(report.failed, 0);
  EXPECT_EQ(report.not_generated, 1);
  EXPECT_EQ(report.aborted_answers, 3);
  EXPECT_EQ(report.answers, 3);
  EXPECT_DOUBLE_EQ(report.mean, 1);
  EXPECT_TRUE(store->ReadScore(Purpose::kTrain, 1, report.name)->answers[0].parts.empty());
  EXPECT_FALSE(store->ReadScore(Purpose::kTrain, 2, report.name).has_value());
  EXPECT_TRUE(Has(report.Describe()[0],
                  "3 read = 2 scored + 0 scored before + 0 failed + 0 dropped + 1 never generated"))
      << report.Describe()[0];
}

}  // namespace
}  // namespace plumb::run
