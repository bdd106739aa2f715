// replay/datasets/pair_miner.h: which pairs a group gives, what is counted, and that a dataset is
// made once.
#include "replay/datasets/pair_miner.h"

#include <nlohmann/json.hpp>

#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

// A group whose answers have these rewards and differ in their tokens.
TrajectoryGroup Rewarded(uint64_t id, const std::vector<double>& rewards, int64_t version = 3) {
  TrajectoryGroup group =
      Answer(PlainLease(id, Purpose::kTrain, static_cast<int32_t>(rewards.size())), version);
  for (size_t i = 0; i < rewards.size(); ++i) {
    Trajectory& t = group.trajectories[i];
    t.tokens.back() = 500 + static_cast<int32_t>(i);
    t.reward = t.rewards[0].value = rewards[i];
  }
  return group;
}

std::vector<PreferenceRecord> Mine(const TrajectoryGroup& group, const MineOptions& options,
                                   MineReport& report, const std::vector<double>& scores = {}) {
  return MineGroup(group, scores, scores.empty() ? "" : "again", scores.empty() ? "" : "again",
                   options, report);
}

TEST(PairMiner, TheBestMeetsTheWorstAndSoOnInwards) {
  MineReport report;
  const auto pairs = Mine(Rewarded(7, {0.5, 1.0, 0.0, 0.25, 0.75}), {.per_group = 9}, report);
  ASSERT_EQ(pairs.size(), 2u);  // the middle one has nobody left
  const auto about = nlohmann::json::parse(pairs[0].extra_json);
  EXPECT_EQ(about["chosen_sample"], 1);
  EXPECT_EQ(about["rejected_sample"], 2);
  EXPECT_EQ(about["lease_id"], 7);
  EXPECT_EQ(about["policy_version"], 3);
  EXPECT_EQ(about["policy_digest"], "digest-3");
  EXPECT_EQ(about["reward_digest"], "correct:fn");
  EXPECT_EQ(about["score"], "stored");
  EXPECT_EQ(nlohmann::json::parse(pairs[1].extra_json)["chosen_sample"], 4);
  EXPECT_EQ(nlohmann::json::parse(pairs[1].extra_json)["rejected_sample"], 3);
  EXPECT_EQ(pairs[0].prompt_text, "prompt of 7");
  EXPECT_EQ(pairs[0].prompt_tokens, (std::vector<int32_t>{7, 8}));
  EXPECT_EQ(pairs[0].chosen_tokens, (std::vector<int32_t>{9, 10, 501}));
  EXPECT_EQ(pairs[0].rejected_tokens, (std::vector<int32_t>{9, 10, 502}));
  EXPECT_EQ(pairs[0].chosen[0].content, "answer 7/1");
  EXPECT_FALSE(pairs[0].has_margin);
  for (const PreferenceRecord& pair : pairs) CheckInvariants(pair);
  EXPECT_EQ(Mine(Rewarded(7, {0.5, 1.0, 0.0, 0.25, 0.75}), {.per_group = 1}, report).size(), 1u);
}

// The tokens keep it: they are what was sampled.
TEST(PairMiner, TextsAreWithoutTheirEndToken) {
  TrajectoryGroup group = Rewarded(7, {1, 0});
  group.trajectories[0].completion = "good<|im_end|>";
  group.trajectories[1].completion = "bad<stop>";
  MineReport report;
  const auto pairs = Mine(group, {.end_tokens = {"<stop>"}}, report);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].chosen[0].content, "good");
  EXPECT_EQ(pairs[0].rejected[0].content, "bad");
  EXPECT_EQ(pairs[0].chosen_tokens.size(), 3u);
}

TEST(PairMiner, EqualRewardsGoBySampleNumber) {
  MineReport report;
  const auto pairs = Mine(Rewarded(1, {0, 1, 1, 0}), {.per_group = 2, .keep_margin = true}, report);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(nlohmann::json::parse(pairs[0].extra_json)["chosen_sample"], 1);
  EXPECT_EQ(nlohmann::json::parse(pairs[0].extra_json)["rejected_sample"], 3);
  EXPECT_EQ(nlohmann::json::parse(pairs[1].extra_json)["chosen_sample"], 2);
  EXPECT_EQ(nlohmann::json::parse(pairs[1].extra_json)["rejected_sample"], 0);
  EXPECT_TRUE(pairs[0].has_margin);
  EXPECT_DOUBLE_EQ(pairs[0].margin, 1.0);
}

TEST(PairMiner, EveryGroupWithoutAPairSaysWhy) {
  MineReport report;
  EXPECT_TRUE(Mine(Rewarded(1, {0.5, 0.5, 0.5}), {}, report).empty());
  EXPECT_EQ(report.tied_groups, 1);
  EXPECT_TRUE(Mine(Rewarded(2, {0.5, 0.25}), {.margin = 0.3}, report).empty());
  EXPECT_EQ(report.close_groups, 1);
  // at least, not more than
  EXPECT_EQ(Mine(Rewarded(2, {0.5, 0.25}), {.margin = 0.25}, report).size(), 1u);
  TrajectoryGroup one = Rewarded(3, {1, 0});
  one.trajectories[1].scored = false;
  one.trajectories[1].unscored_reason = "timeout";
  EXPECT_TRUE(Mine(one, {}, report).empty());
  EXPECT_EQ(report.one_sided_groups, 1);
  EXPECT_EQ(report.unusable_answers, 1);
  TrajectoryGroup same = Rewarded(4, {1, 0});
  same.trajectories[1].tokens = same.trajectories[0].tokens;
  EXPECT_TRUE(Mine(same, {}, report).empty());
  EXPECT_EQ(report.identical_groups, 1);
  EXPECT_EQ(report.identical_pairs, 1);
  TrajectoryGroup turns = Rewarded(5, {1, 0, 0.5});
  turns.trajectories[0].segments = {
      {Origin::kPrompt, 0, 2}, {Origin::kPolicy, 2, 3}, {Origin::kEnvironment, 3, 5}};
  const auto rest = Mine(turns, {}, report);
  EXPECT_EQ(report.mixed_answers, 1);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(nlohmann::json::parse(rest[0].extra_json)["chosen_sample"], 2);
}

TEST(PairMiner, OtherScoresTurnAPairRound) {
  MineReport report;
  const auto pairs = Mine(Rewarded(1, {1, 0}), {}, report, {-2.0, 3.0});
  ASSERT_EQ(pairs.size(), 1u);
  const auto about = nlohmann::json::parse(pairs[0].extra_json);
  EXPECT_EQ(about["chosen_sample"], 1);
  EXPECT_EQ(about["chosen_reward"], 3.0);
  EXPECT_EQ(about["score"], "again");
  EXPECT_EQ(about["reward_digest"], "again");
}

TEST(PairMiner, ADatasetIsMadeOnceAndTheLedgerAddsUp) {
  const TempFolder folder;
  const auto store = OpenStore(folder / "run");
  for (uint64_t id = 0; id < 600; ++id) {  // more than a piece
    TrajectoryGroup group =
        Rewarded(id, id % 3 == 0 ? std::vector<double>{1, 1} : std::vector<double>{0, 1});
    // Answer repeats its tokens every 1000 ids
    for (Trajectory& t : group.trajectories) t.tokens[2] = 1000 + static_cast<int32_t>(id);
    ASSERT_EQ(store->Insert(group), InsertResult::kInserted);
  }
  ASSERT_EQ(InsertDropped(*store, PlainGroup(600), "unscored"), InsertResult::kInserted);
  TrajectoryGroup repeat = Rewarded(1, {0, 1});  // the same prompt and answers under another lease
  for (Trajectory& t : repeat.trajectories) t.tokens[2] = 1001;
  repeat.lease.lease_id = 601;
  ASSERT_EQ(store->Insert(repeat), InsertResult::kInserted);

  const auto into = Store::Open(folder / "pairs");
  const MineReport report = MinePairs(*store, *into, {});
  EXPECT_EQ(report.groups, 602);
  EXPECT_EQ(report.pairs, 400);
  EXPECT_EQ(report.tied_groups, 200);
  EXPECT_EQ(report.dropped_groups, 1);
  EXPECT_EQ(report.repeated_groups, 1);
  EXPECT_EQ(report.groups, report.used_groups + report.tied_groups + report.one_sided_groups +
                               report.close_groups + report.identical_groups +
                               report.repeated_groups + report.unscored_groups +
                               report.dropped_groups);
  EXPECT_FALSE(report.unchanged);
  EXPECT_EQ(into->PreferenceCount("mined"), 400u);
  EXPECT_TRUE(MinePairs(*store, *into, {}).unchanged);
  EXPECT_EQ(into->PreferenceCount("mined"), 400u);
  EXPECT_THROWS(ErrorCode::kConflict, "mined",
                MinePairs(*store, *into, {.margin = 0.5, .keep_margin = true}));
  // a store may keep its own pairs
  EXPECT_EQ(MinePairs(*store, *store, {.dataset = "here"}).pairs, 400);
  EXPECT_TRUE(into->Verify().problems.empty());
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "401 closer than the margin",
                MinePairs(*store, *into, {.dataset = "none", .margin = 2}));
  EXPECT_EQ(into->PreferenceCount("none"), 0u);
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "plumb data rescore",
                MinePairs(*store, *into, {.score = "abc"}));
}

}  // namespace
}  // namespace plumb::replay
