// What a table does when its learner goes back to a checkpoint: which answers stay, and which are
// asked for again.
#include <chrono>
#include <future>

#include "replay/table/table.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

using namespace std::chrono_literals;

struct Ring {
  explicit Ring(TableOptions given) : options(std::move(given)) { Reopen(); }
  void Reopen() {
    table.reset();
    store.reset();
    store = OpenStore(folder / "store");
    store->PutPrompts(kTrainDataset, SomePrompts(10));
    store->PutPrompts(kEvalDataset, SomePrompts(3, "held out "));
    table = std::make_unique<ReplayTable>(store.get(), options);
  }
  // What is missing of a step after the learner has asked for it.
  std::vector<PromptLease> Ask(int64_t step) {
    try {
      table->Next(step, After(0ms));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kDeadline) << e.what();
    }
    return table->Lease(100, After(0ms));
  }
  void AnswerAll(const std::vector<PromptLease>& leases, int64_t version, bool scored = true) {
    for (const PromptLease& lease : leases) {
      TrajectoryGroup group = Answer(lease, version);
      if (!scored) Unscore(group);
      EXPECT_EQ(table->Insert(group), InsertResult::kInserted) << lease.lease_id;
    }
  }
  static void Unscore(TrajectoryGroup& group) {
    for (Trajectory& t : group.trajectories)
      t.scored = false, t.unscored_reason = "the judge is away", t.rewards.clear();
  }

  TempFolder folder;
  TableOptions options;
  std::unique_ptr<Store> store;
  std::unique_ptr<ReplayTable> table;
};

TableOptions Small() {
  TableOptions o;
  o.steps = 10;
  o.prompts_per_step = 4;
  o.samples_per_prompt = 2;
  return o;
}

std::vector<uint64_t> Ids(const std::vector<PromptLease>& leases) {
  std::vector<uint64_t> ids;
  for (const PromptLease& l : leases) ids.push_back(l.lease_id);
  return ids;
}

// Two good steps, then three without a score: resumed from either side of them, the three are
// answered afresh, with the same prompts and higher attempts, and nothing else.
TEST(TableCursor, StepsWithoutAScoreAreAnsweredAfresh) {
  for (const int64_t from : {1, 2, 4}) {
    Ring ring(Small());
    for (int64_t step = 0; step < 2; ++step) ring.AnswerAll(ring.Ask(step), step);
    std::vector<PromptLease> dead;
    for (int64_t step = 2; step < 5; ++step) {
      dead = ring.Ask(step);
      ring.AnswerAll(dead, step, /*scored=*/false);
    }
    const auto good = ring.table->Next(1, After(0ms));
    const uint64_t sequence = ring.store->Sequence();
    EXPECT_FALSE(ring.table->Next(4, After(0ms)).at(0).trajectories.at(0).scored)
        << "without a resume they are served as they are";
    ring.Reopen();
    EXPECT_EQ(ring.table->Resume({from, sequence}), 4 * (5 - std::max<int64_t>(from, 2)));
    EXPECT_EQ(ring.store->Sequence(), sequence);
    if (from == 1) {
      EXPECT_EQ(ring.table->Next(1, After(0ms)), good);
    }
    for (int64_t step = std::max<int64_t>(from, 2); step < 5; ++step) {
      const auto again = ring.Ask(step);
      ASSERT_EQ(again.size(), 4u) << step;
      for (size_t i = 0; step == 4 && i < 4; ++i) {
        EXPECT_EQ(again[i].prompt, dead[i].prompt);
        EXPECT_GT(again[i].attempt, dead[i].attempt);
      }
      ring.AnswerAll(again, step);
      for (const auto& group : ring.table->Next(step, After(0ms)))
        EXPECT_TRUE(group.trajectories.at(0).scored);
    }
    // Durable, and no marker comes back: an interruption right behind the resume loses nothing.
    ring.Reopen();
    EXPECT_EQ(ring.table->Resume({from, sequence}), 0);
    EXPECT_TRUE(ring.table->Next(4, After(0ms)).at(0).trajectories.at(0).scored);
    EXPECT_TRUE(ring.store->Verify().problems.empty());
  }
}

// A group that was dropped in a step that has others stays dropped: the run resumed is the run
// unbroken.
TEST(TableCursor, ADroppedGroupAmongOthersStays) {
  Ring ring(Small());
  auto leases = ring.Ask(0);
  ring.AnswerAll({leases[0], leases[1]}, 0);
  ring.AnswerAll({leases[2], leases[3]}, 0, /*scored=*/false);
  const auto batch = ring.table->Next(0, After(0ms));
  ring.Reopen();
  EXPECT_EQ(ring.table->Resume({0, 4}), 0);
  EXPECT_EQ(ring.table->Next(0, After(0ms)), batch);
}

TEST(TableCursor, AnEvaluationWithoutAScoreIsAnsweredAfresh) {
  Ring ring(Small());
  const auto ask = [&] {
    EXPECT_THROW(ring.table->Evaluate(0, 1, After(0ms)), Error);
    return ring.table->Lease(100, After(0ms));
  };
  ring.AnswerAll(ask(), 0, /*scored=*/false);
  EXPECT_FALSE(ring.table->Evaluate(0, 1, After(0ms)).at(0).trajectories.at(0).scored);
  ring.Reopen();
  ring.table->Resume({0, 0});
  auto again = ask();
  ASSERT_EQ(again.size(), 3u);
  ring.AnswerAll({again[0]}, 0);
  ring.AnswerAll({again[1], again[2]}, 0, /*scored=*/false);
  ring.Reopen();
  ring.table->Resume({0, 0});
  EXPECT_TRUE(ring.table->Evaluate(0, 1, After(0ms)).at(0).trajectories.at(0).scored)
      << "one score is an answer";
}

// A learner that comes back with other weights under the same numbers, as after a change of the
// schedule: what the old ones sampled is sampled again from where they differ; equal bits keep
// everything.
TEST(TableCursor, GroupsOfOtherWeightsAreSampledAgain) {
  Ring ring(Small());
  for (int64_t step = 0; step < 4; ++step) {
    ring.table->Announce({step, "digest-" + std::to_string(step)});
    ring.AnswerAll(ring.Ask(step), step);
  }
  ring.AnswerAll(
      [&] {
        EXPECT_THROW(ring.table->Evaluate(3, 1, After(0ms)), Error);
        return ring.table->Lease(100, After(0ms));
      }(),
      3);
  for (const bool same : {true, false}) {
    ring.Reopen();
    ring.table->Resume({1, 16});
    ring.table->Announce({1, "digest-1"});
    EXPECT_TRUE(ring.Ask(1).empty()) << "the checkpoint's own weights";
    ring.table->Announce({2, same ? "digest-2" : "changed-2"});
    const auto again = ring.Ask(2);
    EXPECT_EQ(Ids(again), same ? std::vector<uint64_t>{} : (std::vector<uint64_t>{8, 9, 10, 11}));
    if (same) {
      ring.table->Announce({3, "digest-3"});
      EXPECT_TRUE(ring.Ask(3).empty());
      EXPECT_EQ(ring.table->Evaluate(3, 1, After(0ms)).size(), 3u);
      continue;
    }
    // An actor that still has the old ones is refused, and its lease goes out at once.
    EXPECT_EQ(ring.table->Insert(Answer(again[0], 2)), InsertResult::kRefused);
    EXPECT_EQ(Ids(ring.table->Lease(9, After(0ms))), (std::vector<uint64_t>{8}));
    for (const PromptLease& lease : again) {
      TrajectoryGroup group = Answer(lease, 2);
      group.policy.digest = "changed-2";
      EXPECT_EQ(ring.table->Insert(group), InsertResult::kInserted);
    }
    EXPECT_EQ(ring.table->Next(2, After(0ms)).at(3).policy.digest, "changed-2");
    ring.table->Announce({3, "changed-3"});
    EXPECT_EQ(ring.Ask(3).size(), 4u);
    EXPECT_THROWS(ErrorCode::kDeadline, "3 of 3 groups of the evaluation of version 3",
                  ring.table->Evaluate(3, 1, After(0ms)));
    EXPECT_EQ(ring.table->Counters()["reopened/other_weights"], 4 + 4 + 3);
  }
}

// Generation that ran ahead: the learner's later life has not published what a stored group was
// sampled with.
TEST(TableCursor, GroupsOfVersionsThatAreNotOutAreSampledAgain) {
  TableOptions o = Small();
  o.sync = false;
  o.max_staleness = 3;
  Ring ring(o);
  ring.table->Announce({0, "digest-0"});
  const auto leases = ring.Ask(0);  // of the steps 0 to 3
  ring.AnswerAll({leases.begin(), leases.begin() + 4}, 0);
  for (const int64_t v : {1, 2}) ring.table->Announce({v, "digest-" + std::to_string(v)});
  ring.AnswerAll({leases[4], leases[5], leases[8]}, 1);
  ring.AnswerAll({leases[6], leases[9]}, 2);
  // The same table: only the learner died, and an actor kept version 2.
  ring.table->Resume({1, 9});
  ring.table->Announce({1, "changed-1"});
  EXPECT_EQ(ring.table->Insert(Answer(leases[10], 2)), InsertResult::kRefused)
      << "no version 2 is out";
  EXPECT_EQ(ring.table->Insert(Answer(leases[7], 0)), InsertResult::kInserted)
      << "version 0 lies before the checkpoint";
  EXPECT_THROWS(ErrorCode::kDeadline, "3 of 4 groups of step 1", ring.table->Next(1, After(0ms)));
  EXPECT_EQ(ring.table->Counters()["reopened/other_weights"], 5);
  for (const size_t i : {4, 5, 6})
    EXPECT_EQ(ring.table->Insert(Answer(leases[i], 0)), InsertResult::kInserted);
  EXPECT_EQ(ring.table->Next(1, After(0ms)).size(), 4u);
  ring.table->Announce({2, "changed-2"});
  EXPECT_THROWS(ErrorCode::kDeadline, "4 of 4 groups of step 2", ring.table->Next(2, After(0ms)));
}

TEST(TableCursor, WhatWasDrawnFromReopenedGroupsIsDrawnAgain) {
  TableOptions o = Small();
  o.planner.groups_per_step = 2;
  Ring ring(o);
  ring.table->Announce({0, "digest-0"});
  ring.AnswerAll(ring.Ask(0), 0);
  ring.table->Announce({1, "digest-1"});
  ring.AnswerAll(ring.Ask(1), 1, /*scored=*/false);
  ring.table->Announce({2, "digest-2"});
  ring.AnswerAll(ring.Ask(2), 2, /*scored=*/false);
  EXPECT_EQ(ring.table->Next(2, After(0ms)).size(), 4u)
      << "the step before has nothing to draw from";
  ring.table->Resume({1, 12});
  ring.table->Announce({1, "digest-1"});
  ring.AnswerAll(ring.Ask(1), 1);
  ring.table->Announce({2, "digest-2"});
  ring.AnswerAll(ring.Ask(2), 2);
  EXPECT_EQ(ring.table->Next(2, After(0ms)).size(), 6u);
  EXPECT_TRUE(ring.store->ReadPlan(2)->drawn);
}

TEST(TableCursor, AStoreThatLostGroupsIsRefused) {
  Ring ring(Small());
  ring.AnswerAll(ring.Ask(0), 0);
  EXPECT_THROWS(ErrorCode::kCorruption, "acknowledged groups are missing",
                ring.table->Resume({1, 5}));
  EXPECT_THROWS(ErrorCode::kCorruption, "lease 4 is not in the store", ring.table->Resume({2, 4}));
  EXPECT_EQ(ring.table->Resume({1, 4}), 0);
}

}  // namespace
}  // namespace plumb::replay
