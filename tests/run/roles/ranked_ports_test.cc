// run/roles/ranked_ports.h: what rank 0's ports say reaches all ranks, errors too, and a long wait
// of it is none of theirs.
#include "run/roles/ranked_ports.h"

#include <gtest/gtest.h>

#include "tests/learner/rank_threads.h"

namespace plumb::run {
namespace {

using learner::AsRanks;
using learner::Ranks;

TrajectoryGroup Group(uint64_t lease) {
  TrajectoryGroup group;
  group.run_id = "run";
  group.actor = "actor-0";
  group.lease.lease_id = lease;
  group.lease.num_samples = 2;
  group.lease.prompt.tokens = {5, 6};
  group.policy.version = 3;
  for (uint32_t i = 0; i < 2; ++i) {
    Trajectory t;
    t.sample = i;
    t.tokens = {5, 6, 7, static_cast<int32_t>(8 + i)};
    t.loss_mask = {0, 0, 1, 1};
    t.logprobs = {0, 0, -0.5f, -0.25f};
    t.policy_versions = {-1, -1, 3, 3};
    t.segments = {{.origin = Origin::kPrompt, .begin = 0, .end = 2},
                  {.origin = Origin::kPolicy, .begin = 2, .end = 4}};
    t.reward = 0.1 * i;
    t.scored = i == 1;
    if (!t.scored) t.unscored_reason = "the verifier was away";
    t.rewards = {{.name = "correct", .value = t.reward}};
    group.trajectories.push_back(std::move(t));
  }
  return group;
}

struct Batches : BatchSource {
  std::function<void()> on_next = [] {};
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline) override {
    on_next();
    return {Group(static_cast<uint64_t>(step)), Group(static_cast<uint64_t>(step) + 1)};
  }
  std::vector<TrajectoryGroup> Evaluate(int64_t, int, Deadline) override { return {}; }
  void Finish() override { ++finished; }
  int finished = 0;
};

TEST(RankedBatches, EveryRankHasTheGroupsOfTheFirst) {
  Batches batches;
  AsRanks(3, [&](Ranks* ranks) {
    RankedBatches ranked(*ranks, ranks->first() ? &batches : nullptr, nullptr);
    const auto groups = ranked.Next(7, After(std::chrono::seconds(5)));
    ASSERT_EQ(groups.size(), 2u);
    for (size_t g = 0; g < 2; ++g) {
      const TrajectoryGroup expected = Group(7 + g);
      EXPECT_EQ(groups[g].lease.lease_id, expected.lease.lease_id);
      EXPECT_EQ(groups[g].policy, expected.policy);
      ASSERT_EQ(groups[g].trajectories.size(), 2u);
      for (size_t i = 0; i < 2; ++i) {
        const Trajectory &is = groups[g].trajectories[i], &was = expected.trajectories[i];
        EXPECT_EQ(is.tokens, was.tokens);
        EXPECT_EQ(is.loss_mask, was.loss_mask);
        EXPECT_EQ(is.logprobs, was.logprobs);
        EXPECT_EQ(is.scored, was.scored);
        EXPECT_EQ(is.unscored_reason, was.unscored_reason);
        if (was.scored) {
          EXPECT_EQ(is.reward, was.reward);
          ASSERT_EQ(is.rewards.size(), 1u);
          EXPECT_EQ(is.rewards[0].name, "correct");
        }
      }
    }
    EXPECT_TRUE(ranked.Evaluate(7, 2, After(std::chrono::seconds(5))).empty());
    ranked.Finish();
    EXPECT_FALSE(ranked.WantsBytes());
  });
  EXPECT_EQ(batches.finished, 1);
}

TEST(RankedBatches, AnErrorOfTheFirstIsThrownOnAll) {
  AsRanks(3, [&](Ranks* ranks) {
    Batches batches;
    batches.on_next = [] { throw Error(ErrorCode::kDeadline, "no answer came", "the store"); };
    RankedBatches ranked(*ranks, ranks->first() ? &batches : nullptr, nullptr);
    try {
      ranked.Next(0, After(std::chrono::seconds(5)));
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kDeadline);
      EXPECT_EQ(e.message(), "no answer came");
      EXPECT_EQ(e.where(), "the store");
    }
    batches.on_next = [] {};
    EXPECT_EQ(ranked.Next(0, After(std::chrono::seconds(5))).size(), 2u) << "they go on together";
  });
}

// The ranks wait 7 s for each other; a batch takes 9.
TEST(RankedBatches, ALongWaitOfTheFirstIsNotTakenForItsEnd) {
  const auto thrown = learner::TryAsRanks(
      2,
      [&](Ranks* ranks) {
        Batches batches;
        RankedBatches ranked(*ranks, ranks->first() ? &batches : nullptr, nullptr);
        batches.on_next = [&] {
          const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(9);
          while (std::chrono::steady_clock::now() < end) {
            ranked.StillWaiting();
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
          }
        };
        ranked.StillWaiting();  // outside of a wait: nobody listens
        EXPECT_EQ(ranked.Next(0, After(std::chrono::seconds(60))).size(), 2u);
      },
      std::chrono::seconds(7));
  for (const auto& each : thrown) {
    if (each) std::rethrow_exception(each);
  }
}

struct Cache : LogprobCache {
  std::optional<std::vector<float>> Get(const Digest&, const Digest& sequence) override {
    if (sequence != "known") return std::nullopt;
    return std::vector<float>{-1.5f, -0.25f};
  }
  void Put(const Digest&, const Digest&, std::span<const float>) override { ++puts; }
  int puts = 0;
};

TEST(RankedLogprobs, AllRanksFindTheSame) {
  Cache cache;
  AsRanks(2, [&](Ranks* ranks) {
    RankedLogprobs ranked(*ranks, ranks->first() ? &cache : nullptr);
    EXPECT_EQ(ranked.Get("m", "known"), (std::vector<float>{-1.5f, -0.25f}));
    EXPECT_FALSE(ranked.Get("m", "unknown"));
    ranked.Put("m", "unknown", std::vector<float>{-1});
  });
  EXPECT_EQ(cache.puts, 1);
}

TEST(SharedPreferences, AllRanksHaveThePairsOfTheFirst) {
  PreferenceData data;
  data.identity = "3 rows";
  data.train = {{.dataset = "d",
                 .row = 4,
                 .chosen = {{1, 2, 3}, {0, 1, 1}},
                 .rejected = {{1, 2}, {0, 1}},
                 .margin = 0.5,
                 .has_margin = true}};
  data.heldout = {{.dataset = "d", .row = 5, .chosen = {{1, 2}, {0, 1}}, .rejected = {{1}, {0}}}};
  data.completions = {
      {.dataset = "d", .row = 6, .completion = {{7, 8}, {0, 1}}, .desirable = true}};
  AsRanks(2, [&](Ranks* ranks) {
    const PreferenceData seen = SharedPreferences(*ranks, [&] {
      EXPECT_TRUE(ranks->first());
      return data;
    });
    EXPECT_EQ(seen.identity, data.identity);
    EXPECT_EQ(seen.train, data.train);
    EXPECT_EQ(seen.heldout, data.heldout);
    EXPECT_EQ(seen.completions, data.completions);
    EXPECT_TRUE(seen.completions_heldout.empty());
  });
}

}  // namespace
}  // namespace plumb::run
