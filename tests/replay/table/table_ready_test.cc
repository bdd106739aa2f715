// Schedule async: a step takes the groups that are there, and which they were is not forgotten.
#include <set>

#include "replay/table/table.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

using namespace std::chrono_literals;
using Numbers = std::vector<uint64_t>;

TableOptions Async(int64_t max_staleness = 2) {
  TableOptions o;
  o.steps = 10;
  o.prompts_per_step = 4;
  o.samples_per_prompt = 2;
  o.sync = false;
  o.max_staleness = max_staleness;
  return o;
}

struct Ring {
  explicit Ring(TableOptions given = Async()) : options(std::move(given)) { Reopen(); }
  void Reopen() {
    table.reset();
    store.reset();
    store = OpenStore(folder / "store");
    store->PutPrompts(kTrainDataset, SomePrompts(10));
    table = std::make_unique<ReplayTable>(store.get(), options);
  }
  // The leases that are open once the learner has asked for the step.
  void Ask(int64_t step) {
    if (!table->Ready(step)) {
      EXPECT_THROW(table->Next(step, After(0ms)), Error);
    }
    for (const PromptLease& lease : table->Lease(100, After(0ms))) leases[lease.lease_id] = lease;
  }
  InsertResult Answer(uint64_t id, int64_t version) {
    return table->Insert(replay::Answer(leases.at(id), version));
  }
  void AnswerAll(const Numbers& ids, int64_t version) {
    for (const uint64_t id : ids) EXPECT_EQ(Answer(id, version), InsertResult::kInserted) << id;
  }
  Numbers Next(int64_t step) {
    Numbers ids;
    for (const TrajectoryGroup& group : table->Next(step, After(0ms)))
      ids.push_back(group.lease.lease_id);
    return ids;
  }
  int64_t Counter(const std::string& name) { return table->Counters()[name]; }

  TempFolder folder;
  TableOptions options;
  std::unique_ptr<Store> store;
  std::unique_ptr<ReplayTable> table;
  std::map<uint64_t, PromptLease> leases;  // by lease, the newest attempt
};

TEST(TableReady, AStragglerHoldsUpNoStepUnderAsyncAndItsOwnUnderSync) {
  Ring ring;
  ring.Ask(0);
  ring.AnswerAll({3, 1, 4, 2}, 0);
  EXPECT_EQ(ring.Next(0), (Numbers{3, 1, 4, 2})) << "in order of arrival";
  ring.Ask(1);
  ring.AnswerAll({5, 9}, 0);
  EXPECT_THROWS(
      ErrorCode::kDeadline,
      "waiting for 2 of 4 groups of step 1: leases 0, 6, 7, 8, 10, 11, 12, 13 and 2 more at actor",
      ring.table->Next(1, After(0ms)));
  ring.AnswerAll({6, 7}, 1);
  EXPECT_EQ(ring.Next(1), (Numbers{5, 9, 6, 7}));
  // Late, and within the bound: it is trained on by the step that is next.
  ring.Ask(2);
  ring.AnswerAll({0, 8, 10, 11}, 0);
  EXPECT_EQ(ring.Next(2), (Numbers{0, 8, 10, 11}));
  EXPECT_EQ(ring.Counter("queue"), 0);

  TableOptions sync = Async(0);
  sync.sync = true;
  Ring waits(sync);
  waits.Ask(0);
  waits.AnswerAll({3, 1, 2}, 0);
  EXPECT_THROWS(ErrorCode::kDeadline, "waiting for 1 of 4 groups of step 0: lease 0 at actor",
                waits.table->Next(0, After(0ms)));
  waits.AnswerAll({0}, 0);
  EXPECT_EQ(waits.Next(0), (Numbers{0, 1, 2, 3})) << "in order of lease";
}

TEST(TableReady, AStragglerBeyondTheBoundIsRefusedCountedAndAnsweredAgain) {
  Ring ring(Async(1));
  ring.Ask(0);
  ring.AnswerAll({1, 2, 3, 4}, 0);
  EXPECT_EQ(ring.Next(0).size(), 4u);
  ring.Ask(1);
  ring.AnswerAll({5, 6, 7, 8}, 1);
  EXPECT_EQ(ring.Next(1).size(), 4u);
  EXPECT_EQ(ring.Answer(0, 0), InsertResult::kRefused)
      << "step 2 is the first that could take it, and wants version 1";
  EXPECT_EQ(ring.Counter("refused/stale"), 1);
  ring.Ask(2);
  EXPECT_EQ(ring.leases.at(0).attempt, 1u);
  TrajectoryGroup mixed = Answer(ring.leases.at(0), 2);
  mixed.trajectories[1].policy_versions[2] = 0;
  EXPECT_EQ(ring.table->Insert(mixed), InsertResult::kRefused) << "one old token is enough";
  ring.Ask(2);
  ring.AnswerAll({9, 0, 10, 11}, 2);
  EXPECT_EQ(ring.Next(2), (Numbers{9, 0, 10, 11}));
}

TEST(TableReady, AGroupThatGrewTooOldWhileItLayReadyIsCountedAndAnsweredAgain) {
  Ring ring(Async(1));
  ring.Ask(0);
  ring.AnswerAll({0, 1, 2, 3}, 0);
  EXPECT_EQ(ring.Next(0).size(), 4u);
  ring.Ask(1);
  ring.AnswerAll({4, 5, 6, 7}, 1);
  ring.AnswerAll({8}, 0);
  EXPECT_EQ(ring.Next(1), (Numbers{4, 5, 6, 7}));
  EXPECT_EQ(ring.Counter("queue"), 1);
  ring.Ask(2);
  EXPECT_EQ(ring.Counter("reopened/stale"), 1);
  EXPECT_EQ(ring.leases.at(8).attempt, 1u);
  ring.AnswerAll({8, 9, 10, 11}, 2);
  EXPECT_EQ(ring.Next(2), (Numbers{8, 9, 10, 11}));
}

TEST(TableReady, AskedAgainAndAfterAKillAStepTakesTheSame) {
  Ring ring;
  ring.Ask(0);
  ring.AnswerAll({6, 2, 7, 4, 1}, 0);
  const auto first = ring.table->Next(0, After(0ms));
  ring.AnswerAll({0, 3}, 0);
  EXPECT_EQ(ring.table->Next(0, After(0ms)), first) << "whatever has come since";
  ring.Ask(1);
  ring.AnswerAll({8}, 1);
  const Numbers second = ring.Next(1);
  EXPECT_EQ(second, (Numbers{1, 0, 3, 8}));
  ring.AnswerAll({10, 5}, 1);

  ring.Reopen();  // the store alone was killed: its learner goes on
  EXPECT_EQ(ring.Counter("queue"), 2) << "what was taken is not ready again";
  EXPECT_EQ(ring.Next(1), second);
  ring.Reopen();  // all were killed, and the newest checkpoint is that of step 0
  EXPECT_EQ(ring.table->Resume({0, 10}), 0);
  EXPECT_EQ(ring.table->Next(0, After(0ms)), first);
  EXPECT_EQ(ring.Next(1), second);
  ring.Ask(2);
  EXPECT_EQ(ring.leases.at(9).attempt, 1u);
  ring.AnswerAll({9, 11}, 2);
  EXPECT_EQ(ring.Next(2), (Numbers{10, 5, 9, 11}))
      << "in the order in which they came before the kill";
}

// Until the learner is back where choices end, what its weights sampled would be too old for the
// steps to come.
TEST(TableReady, NothingIsHandedOutWhileChosenStepsAreTrainedOnAgain) {
  Ring ring(Async(1));
  for (int64_t step = 0; step < 4; ++step) {
    ring.Ask(step);
    const auto begin = static_cast<uint64_t>(step * 4);
    ring.AnswerAll({begin, begin + 1, begin + 2, begin + 3}, step);
    EXPECT_EQ(ring.Next(step).size(), 4u);
  }
  ring.Reopen();
  ring.table->Resume({1, 16});
  for (const int64_t step : {1, 2}) {
    EXPECT_EQ(ring.Next(step).size(), 4u);
    EXPECT_TRUE(ring.table->Lease(100, After(0ms)).empty()) << step;
  }
  EXPECT_EQ(ring.Next(3).size(), 4u);
  EXPECT_EQ(ring.table->Lease(100, After(0ms)).size(), 4u) << "of step 4";
}

TEST(TableReady, EveryLeaseTrainsOneStepOnceAndTheLastStepsWaitForStragglers) {
  TableOptions o = Async(1);
  o.steps = 4;
  Ring ring(o);
  std::multiset<uint64_t> trained;
  for (int64_t step = 0; step < 4; ++step) {
    ring.Ask(step);
    for (const auto& [id, lease] : ring.leases) {
      if (id > 0 && !ring.store->Contains(Purpose::kTrain, id)) ring.AnswerAll({id}, step);
    }
    if (step == 3) {
      EXPECT_THROWS(ErrorCode::kDeadline, "waiting for 1 of 4 groups of step 3: lease 0 at actor",
                    ring.table->Next(3, After(0ms)));
      EXPECT_EQ(ring.Answer(0, 3), InsertResult::kInserted);
    }
    for (const uint64_t id : ring.Next(step)) trained.insert(id);
  }
  EXPECT_EQ(trained.size(), 16u);
  EXPECT_EQ(std::set<uint64_t>(trained.begin(), trained.end()).size(), 16u);
}

// A learner that comes back with other weights: what they had sampled is answered afresh, and from
// there on steps choose anew.
TEST(TableReady, AChoiceOfGroupsOfOtherWeightsIsMadeAnew) {
  Ring ring(Async(1));
  for (int64_t step = 0; step < 3; ++step) {
    ring.table->Announce({step, "digest-" + std::to_string(step)});
    ring.Ask(step);
    const auto begin = static_cast<uint64_t>(step * 4);
    ring.AnswerAll({begin + 3, begin, begin + 1, begin + 2}, step);
    EXPECT_EQ(ring.Next(step).size(), 4u);
  }
  for (const bool same : {true, false}) {
    ring.Reopen();
    ring.table->Resume({1, 12});
    ring.table->Announce({1, "digest-1"});
    EXPECT_EQ(ring.Next(1), (Numbers{7, 4, 5, 6})) << "the checkpoint's own weights";
    ring.table->Announce({2, same ? "digest-2" : "changed-2"});
    if (same) {
      EXPECT_EQ(ring.Next(2), (Numbers{11, 8, 9, 10}));
      continue;
    }
    ring.Ask(2);
    EXPECT_EQ(ring.Counter("reopened/other_weights"), 4);
    for (const uint64_t id : {9, 8, 12, 10}) {
      TrajectoryGroup group = Answer(ring.leases.at(id), 2);
      group.policy.digest = "changed-2";
      EXPECT_EQ(ring.table->Insert(group), InsertResult::kInserted);
    }
    EXPECT_EQ(ring.Next(2), (Numbers{9, 8, 12, 10}));
    EXPECT_EQ(ring.Next(1), (Numbers{7, 4, 5, 6})) << "what lies before stays";
  }
}

TEST(TableReady, StepsOfWhichNoAnswerHasAScoreChooseAnewAfterAResume) {
  Ring ring;
  ring.Ask(0);
  ring.AnswerAll({0, 1, 2, 3}, 0);
  EXPECT_EQ(ring.Next(0).size(), 4u);
  ring.Ask(1);
  for (const uint64_t id : {4, 5, 6, 7}) {
    TrajectoryGroup group = Answer(ring.leases.at(id), 1);
    for (Trajectory& t : group.trajectories)
      t.scored = false, t.unscored_reason = "the judge is away", t.rewards.clear();
    EXPECT_EQ(ring.table->Insert(group), InsertResult::kInserted);
  }
  EXPECT_EQ(ring.Next(1).size(), 4u);
  ring.Reopen();
  EXPECT_EQ(ring.table->Resume({1, 8}), 4);
  ring.Ask(1);
  ring.AnswerAll({8, 7, 6, 5, 4}, 1);
  EXPECT_EQ(ring.Next(1), (Numbers{8, 7, 6, 5}));
  ring.Reopen();
  EXPECT_EQ(ring.table->Resume({1, 8}), 0);
  EXPECT_EQ(ring.Next(0), (Numbers{0, 1, 2, 3}));
}

TEST(TableReady, TrimmingLeavesWhatLiesBehindAStraggler) {
  Ring ring(Async(3));
  for (int64_t step = 0; step < 3; ++step) {
    ring.Ask(step);
    const auto begin = static_cast<uint64_t>(step * 4) + 1;
    ring.AnswerAll({begin, begin + 1, begin + 2, begin + 3}, step);
    EXPECT_EQ(ring.Next(step).size(), 4u);
  }
  ring.table->Trim(2);
  EXPECT_EQ(ring.store->TrimmedBefore(Purpose::kTrain), 0u) << "lease 0 is not answered yet";
  ring.Reopen();
  EXPECT_EQ(ring.Counter("queue"), 0) << "what was taken is known";
  EXPECT_EQ(ring.table->Resume({2, 12}), 0);
  ring.Ask(2);
  ring.Ask(3);
  ring.AnswerAll({0, 13, 14, 15}, 3);
  EXPECT_EQ(ring.Next(3), (Numbers{0, 13, 14, 15}));
  ring.table->Trim(3);
  EXPECT_EQ(ring.store->TrimmedBefore(Purpose::kTrain), 0u) << "lease 0 trained step 3";
  ring.table->Trim(4);
  EXPECT_EQ(ring.store->TrimmedBefore(Purpose::kTrain), 16u);
  EXPECT_TRUE(ring.store->Plans().empty());
  ring.Reopen();
  EXPECT_EQ(ring.table->Resume({4, 16}), 0);
  EXPECT_THROWS(ErrorCode::kNotFound, "trimmed", ring.table->Next(2, After(0ms)));
  ring.Ask(4);
  EXPECT_TRUE(ring.leases.contains(16));
}

// Under a Plumb before this one each step took the leases of its number.
TEST(TableReady, AStoreWithoutChoicesGoesOnBehindTheStepsThatWereTaken) {
  TableOptions sync = Async(0);
  sync.sync = true;
  Ring ring(sync);
  for (int64_t step = 0; step < 2; ++step) {
    ring.Ask(step);
    const auto begin = static_cast<uint64_t>(step * 4);
    ring.AnswerAll({begin, begin + 1, begin + 2, begin + 3}, step);
    EXPECT_EQ(ring.Next(step).size(), 4u);
  }
  EXPECT_TRUE(ring.store->Plans().empty()) << "under sync nothing is chosen";
  ring.options = Async();
  ring.leases.clear();
  ring.Reopen();
  EXPECT_EQ(ring.table->Resume({2, 8}), 0);
  ring.Ask(2);
  EXPECT_EQ(ring.leases.begin()->first, 8u);
  ring.AnswerAll({9, 10, 11, 8}, 2);
  ring.Reopen();
  EXPECT_EQ(ring.Next(2), (Numbers{9, 10, 11, 8}));
}

// Samplers and replay look at what steps took, not at the numbers of leases.
TEST(TableReady, EarlierGroupsAreDrawnFromWhatEarlierStepsTook) {
  TableOptions o = Async();
  o.planner.groups_per_step = 4;
  o.planner.remover.max_steps = 1;
  Ring ring(o);
  ring.Ask(0);
  ring.AnswerAll({7, 1, 5, 3}, 0);
  EXPECT_EQ(ring.Next(0), (Numbers{7, 1, 5, 3}));
  ring.Ask(1);
  ring.AnswerAll({0, 2, 4, 6}, 1);
  EXPECT_EQ(ring.Next(1), (Numbers{0, 2, 4, 6, 1, 3, 5, 7}));
}

}  // namespace
}  // namespace plumb::replay
