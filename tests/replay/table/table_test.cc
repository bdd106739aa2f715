#include "replay/table/table.h"

#include <future>
#include <thread>

#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

using namespace std::chrono_literals;

struct Ring {
  explicit Ring(TableOptions given = {}) : options(std::move(given)) { Reopen(); }
  void Reopen() {
    table.reset();
    store.reset();
    store = OpenStore(folder / "store");
    store->PutPrompts(kTrainDataset, SomePrompts(10));
    store->PutPrompts(kEvalDataset, SomePrompts(5, "held out "));
    options.now_ms = [this] { return now_ms.load(); };
    table = std::make_unique<ReplayTable>(store.get(), options);
  }
  // Asks for a step and comes back at once: what a learner that waits has done, without a thread.
  void Ask(int64_t step) { EXPECT_THROW(table->Next(step, After(0ms)), Error); }
  std::vector<PromptLease> Lease(int n = 100) { return table->Lease(n, After(0ms)); }

  TempFolder folder;
  std::atomic<int64_t> now_ms{1000};
  TableOptions options;
  std::unique_ptr<Store> store;
  std::unique_ptr<ReplayTable> table;
};

TableOptions Small() {
  TableOptions o;
  o.steps = 10;
  o.prompts_per_step = 4;
  o.samples_per_prompt = 2;
  o.lease_timeout_ms = 60'000;
  return o;
}

std::vector<uint64_t> Ids(const std::vector<PromptLease>& leases) {
  std::vector<uint64_t> ids;
  for (const PromptLease& l : leases) ids.push_back(l.lease_id);
  return ids;
}

TEST(TableTest, SyncHandsOutOneStepOnly) {
  Ring ring(Small());
  EXPECT_TRUE(ring.Lease().empty());  // the learner has not asked
  ring.Ask(0);
  const auto leases = ring.Lease();
  EXPECT_EQ(Ids(leases), (std::vector<uint64_t>{0, 1, 2, 3}));
  for (const auto& lease : leases) {
    EXPECT_EQ(lease.policy_version, 0);
    EXPECT_EQ(lease.num_samples, 2);
    EXPECT_EQ(lease.prompt.dataset, "train");
  }
  EXPECT_TRUE(ring.Lease().empty());
  // In from the last to the first: the batch is in order of lease id all the same.
  for (size_t i = leases.size(); i-- > 0;)
    EXPECT_EQ(ring.table->Insert(Answer(leases[i], 0)), InsertResult::kInserted);
  const auto batch = ring.table->Next(0, After(0ms));
  ASSERT_EQ(batch.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(batch[i], AsItTravels(Answer(leases[i], 0)));
  EXPECT_EQ(ring.table->Next(0, After(0ms)), batch);  // asking again gives the same
  ring.Ask(1);
  EXPECT_EQ(Ids(ring.Lease()), (std::vector<uint64_t>{4, 5, 6, 7}));
}

TEST(TableTest, VersionBaseShiftsTheVersionOfASyncLease) {
  TableOptions o = Small();
  o.version_base = 100;
  Ring ring(o);
  ring.Ask(2);
  const auto leases = ring.Lease(1);
  EXPECT_EQ(leases[0].policy_version, 102);
  EXPECT_EQ(ring.table->Insert(Answer(leases[0], 102)), InsertResult::kInserted);
}

TEST(TableTest, AsyncRunsAheadByTheStalenessBound) {
  TableOptions o = Small();
  o.sync = false;
  o.max_staleness = 2;
  o.steps = 4;
  Ring ring(o);
  ring.Ask(0);
  const auto leases = ring.Lease();
  EXPECT_EQ(leases.size(), 12u);  // steps 0, 1, 2
  EXPECT_EQ(leases[0].policy_version, -1);
  EXPECT_EQ(ring.table->Counters()["queue"], 0);
  for (size_t i : {0, 1, 8, 9, 10})
    EXPECT_EQ(ring.table->Insert(Answer(leases[i], 0)), InsertResult::kInserted);
  EXPECT_EQ(ring.table->Counters()["queue"], 5) << "no step has taken any yet";
  EXPECT_EQ(ring.table->Next(0, After(0ms)).size(), 4u);
  EXPECT_EQ(ring.table->Counters()["queue"], 1);
  ring.Ask(1);
  EXPECT_EQ(Ids(ring.Lease()), (std::vector<uint64_t>{12, 13, 14, 15}));
  EXPECT_TRUE(ring.Lease().empty());  // the run ends with step 3
}

TEST(TableTest, RefusesWhatDoesNotBelongHere) {
  Ring ring(Small());
  ring.Ask(1);
  const auto lease = ring.Lease(1)[0];
  EXPECT_EQ(ring.table->Insert(Answer(lease, 1, "another run")), InsertResult::kRefused);
  // newer than the step's version
  EXPECT_EQ(ring.table->Insert(Answer(lease, 2)), InsertResult::kRefused);
  PromptLease other = lease;
  other.prompt.row = (other.prompt.row + 1) % 10;
  EXPECT_EQ(ring.table->Insert(Answer(other, 1)), InsertResult::kRefused);
  other = lease;
  other.num_samples = 3;
  EXPECT_EQ(ring.table->Insert(Answer(other, 1)), InsertResult::kRefused);
  other = lease;
  other.lease_id = 40;  // step 10 of 10
  EXPECT_EQ(ring.table->Insert(Answer(other, 10)), InsertResult::kRefused);
  other.purpose = Purpose::kEval;
  EXPECT_EQ(ring.table->Insert(Answer(other, 0)), InsertResult::kRefused);
  auto counters = ring.table->Counters();
  EXPECT_EQ(counters["refused/other_run"], 1);
  EXPECT_EQ(counters["refused/wrong_version"], 1);
  EXPECT_EQ(counters["refused/wrong_prompt"], 1);
  EXPECT_EQ(counters["refused/wrong_samples"], 1);
  EXPECT_EQ(counters["refused/unknown_lease"], 2);
  EXPECT_EQ(counters["inserts"], 0);
}

// An agent's answer may have several conversations.
TEST(TableTest, TakesMoreTrajectoriesThanSamplesWhereSamplesBranch) {
  TableOptions options = Small();
  options.branches = true;
  Ring ring(options);
  ring.Ask(1);
  PromptLease lease = ring.Lease(1)[0];
  const int32_t samples = lease.num_samples;
  lease.num_samples = samples - 1;
  EXPECT_EQ(ring.table->Insert(Answer(lease, 1)), InsertResult::kRefused) << "an answer is missing";
  lease.num_samples = samples + 2;
  EXPECT_EQ(ring.table->Insert(Answer(lease, 1)), InsertResult::kInserted);
}

TEST(TableTest, ExpiredLeasesGoOutAgainWithTheSameIdAndPrompt) {
  Ring ring(Small());
  ring.Ask(0);
  const auto first = ring.table->LeaseTo("actor-0", 2, After(0ms));
  ring.table->LeaseTo("actor-1", 2, After(0ms));
  ring.now_ms += 59'999;
  EXPECT_TRUE(ring.Lease().empty());
  ring.now_ms += 1;
  const auto again = ring.Lease(2);
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[0].lease_id, first[0].lease_id);
  EXPECT_EQ(again[0].attempt, first[0].attempt + 1);
  EXPECT_EQ(again[0].prompt, first[0].prompt);
  EXPECT_EQ(ring.table->Counters()["expired"], 4);
  // The first holder answers after all, then the second: one is stored.
  EXPECT_EQ(ring.table->Insert(Answer(first[0], 0)), InsertResult::kInserted);
  EXPECT_EQ(ring.table->Insert(Answer(again[0], 0)), InsertResult::kDuplicate);
  EXPECT_EQ(ring.table->Counters()["duplicates"], 1);
}

TEST(TableTest, ReleaseAndADeadActorFreeAtOnce) {
  Ring ring(Small());
  ring.Ask(0);
  const auto a = ring.table->LeaseTo("actor-0", 2, After(0ms));
  ring.table->LeaseTo("actor-1", 2, After(0ms));
  ring.table->Release(std::span(a).first(1));
  EXPECT_EQ(Ids(ring.Lease()), (std::vector<uint64_t>{0}));
  EXPECT_EQ(ring.table->ReleaseActor("actor-1"), 2);
  EXPECT_EQ(Ids(ring.Lease()), (std::vector<uint64_t>{2, 3}));
}

TEST(TableTest, NamesWhatItWaitsFor) {
  Ring ring(Small());
  ring.Ask(1);
  const auto leases = ring.table->LeaseTo("actor-0", 3, After(0ms));
  ring.table->Insert(Answer(leases[0], 1));
  ring.now_ms += 61'000 - 30'000;
  EXPECT_THROWS(ErrorCode::kDeadline,
                "waiting for 3 of 4 groups of step 1: lease 7 not handed out (no actor asks, or "
                "none has the weights); "
                "leases 5, 6 at actor 'actor-0' for 31 s",
                ring.table->Next(1, After(0ms)));
}

TEST(TableTest, NextWakesWhenTheLastGroupArrives) {
  Ring ring(Small());
  auto batch = std::async(std::launch::async, [&] { return ring.table->Next(0, After(20s)); });
  std::vector<PromptLease> leases;
  while (leases.size() < 4) {  // blocks until the learner has asked
    for (auto& l : ring.table->Lease(2, After(5s))) leases.push_back(l);
  }
  std::vector<std::thread> actors;
  for (const auto& lease : leases)
    actors.emplace_back([&ring, lease] { ring.table->Insert(Answer(lease, 0)); });
  for (auto& a : actors) a.join();
  EXPECT_EQ(batch.get().size(), 4u);
}

TEST(TableTest, UnscoredGroupsByPolicy) {
  for (const OnFailure policy : {OnFailure::kPenalty, OnFailure::kDropGroup, OnFailure::kRequeue}) {
    TableOptions o = Small();
    o.unscored = policy;
    o.prompts_per_step = 1;
    Ring ring(o);
    ring.Ask(0);
    const auto unscored = [&](const PromptLease& lease) {
      TrajectoryGroup group = Answer(lease, 0);
      group.trajectories[1].scored = false;
      group.trajectories[1].unscored_reason = "timeout";
      return group;
    };
    TrajectoryGroup group = unscored(ring.Lease(1)[0]);
    InsertResult result = ring.table->Insert(group);
    if (policy == OnFailure::kRequeue) {
      for (uint32_t attempt = 1; attempt <= 3; ++attempt) {
        EXPECT_EQ(result, InsertResult::kRefused);
        const auto again = ring.Lease(1);
        ASSERT_EQ(again.size(), 1u);
        EXPECT_EQ(again[0].attempt, attempt);
        group = unscored(again[0]);
        result = ring.table->Insert(group);
      }
      EXPECT_EQ(ring.table->Counters()["requeued"], 3);
    }
    EXPECT_EQ(result, InsertResult::kInserted);
    const auto batch = ring.table->Next(0, After(0ms));
    ASSERT_EQ(batch.size(), 1u);
    if (policy == OnFailure::kPenalty) {
      EXPECT_EQ(batch[0], AsItTravels(group));
      EXPECT_EQ(ring.table->Counters()["unscored_trajectories"], 1);
    } else {
      ASSERT_EQ(batch[0].trajectories.size(), 2u);
      EXPECT_FALSE(batch[0].trajectories[0].scored);
      EXPECT_EQ(batch[0].trajectories[0].unscored_reason, "its group was dropped: timeout");
      EXPECT_EQ(batch[0].trajectories[1].unscored_reason, "timeout");
      EXPECT_EQ(batch[0].lease.lease_id, 0u);
      EXPECT_EQ(ring.table->Counters()["dropped/unscored"], 1);
      EXPECT_EQ(ring.store->Read(Purpose::kTrain, 0)->drop_reason, "timeout");
    }
    EXPECT_EQ(ring.table->Insert(Answer(group.lease, 0)), InsertResult::kDuplicate);
  }
}

// The actor gave answers up: that is no failure of the reward, and no answer is asked for again.
TEST(TableTest, AnswersThatWereNeverGeneratedCountAsWhatTheyAre) {
  for (const OnFailure policy : {OnFailure::kPenalty, OnFailure::kDropGroup, OnFailure::kRequeue}) {
    TableOptions o = Small();
    o.unscored = policy;
    o.prompts_per_step = 2;
    Ring ring(o);
    ring.Ask(0);
    const auto leases = ring.Lease(2);
    ASSERT_EQ(leases.size(), 2u);
    TrajectoryGroup one = Answer(leases[0], 0), all = Answer(leases[1], 0);
    const auto abort = [](Trajectory& t) {
      t.finish = FinishReason::kAborted;
      t.scored = false;
      t.rewards.clear();
      t.reward = 0;
      t.unscored_reason = "too long";
    };
    abort(one.trajectories[1]);
    for (Trajectory& t : all.trajectories) abort(t);
    for (const TrajectoryGroup* group : {&one, &all})
      EXPECT_EQ(ring.table->Insert(*group), InsertResult::kInserted);
    const auto batch = ring.table->Next(0, After(0ms));
    ASSERT_EQ(batch.size(), 2u);
    EXPECT_EQ(batch[0], AsItTravels(one)) << "the other answer of the group trains";
    EXPECT_EQ(batch[1], AsItTravels(all));
    auto counters = ring.table->Counters();
    EXPECT_EQ(counters["unscored_trajectories"], 3);
    EXPECT_EQ(counters["aborted_trajectories"], 3);
    EXPECT_EQ(counters["dropped/aborted"], 1);
    EXPECT_EQ(counters["dropped/trajectories"], 2);
    EXPECT_EQ(counters["dropped/unscored"], 0);
    EXPECT_EQ(counters["requeued"], 0);
    EXPECT_EQ(ring.store->Read(Purpose::kTrain, all.lease.lease_id)->drop_reason, "too long");
  }
}

TrajectoryGroup EqualAnswer(const PromptLease& lease) {
  TrajectoryGroup group = Answer(lease, 0);
  for (Trajectory& t : group.trajectories) t.reward = t.rewards[0].value = 1;
  return group;
}

TEST(TableTest, GroupsOfEqualRewardAreReplacedByOtherPrompts) {
  TableOptions o = Small();
  o.refill_rounds = 2;
  Ring ring(o);
  ring.Ask(0);
  std::map<uint64_t, std::vector<uint64_t>> rows;  // lease -> its prompts, round by round
  auto leases = ring.Lease();
  ASSERT_EQ(leases.size(), 4u);
  for (const PromptLease& l : leases) rows[l.lease_id].push_back(l.prompt.row);
  for (size_t i = 1; i < 4; ++i)
    EXPECT_EQ(ring.table->Insert(Answer(leases[i], 0)), InsertResult::kInserted);
  const PromptLease first = leases[0];
  EXPECT_EQ(ring.table->Insert(EqualAnswer(first)), InsertResult::kRefused);
  // What the same lease answers once more, late: its prompt is not the lease's any more.
  EXPECT_EQ(ring.table->Insert(Answer(first, 0)), InsertResult::kRefused);
  EXPECT_EQ(ring.table->Counters().at("refused/wrong_prompt"), 1);
  leases = ring.Lease();
  ASSERT_EQ(leases.size(), 1u);
  EXPECT_EQ(leases[0].lease_id, first.lease_id);
  EXPECT_GT(leases[0].attempt, first.attempt);
  rows[0].push_back(leases[0].prompt.row);
  EXPECT_EQ(ring.table->Insert(EqualAnswer(leases[0])), InsertResult::kRefused);
  // The store dies with the second refill out: the next life hands out the same prompt.
  leases = ring.Lease();
  ASSERT_EQ(leases.size(), 1u);
  rows[0].push_back(leases[0].prompt.row);
  ring.Reopen();
  ring.Ask(0);
  leases = ring.Lease();
  ASSERT_EQ(leases.size(), 1u);
  EXPECT_EQ(leases[0].prompt.row, rows[0][2]);
  EXPECT_EQ(ring.table->Counters().at("dropped/equal_rewards"), 2);
  // The last round is kept, whatever it is.
  EXPECT_EQ(ring.table->Insert(EqualAnswer(leases[0])), InsertResult::kInserted);
  EXPECT_EQ(ring.table->Counters().at("refill_limit"), 1);
  const auto batch = ring.table->Next(0, After(0ms));
  ASSERT_EQ(batch.size(), 4u);
  EXPECT_EQ(batch[0].lease.prompt.row, rows[0][2]);
  // Another run of the same seed draws the same three prompts.
  Ring again(o);
  again.Ask(0);
  for (size_t round = 0; round < 3; ++round) {
    const auto next = again.Lease(1);
    ASSERT_EQ(next.size(), 1u);
    EXPECT_EQ(next[0].prompt.row, rows[0][round]);
    again.table->Insert(EqualAnswer(next[0]));
  }
}

TEST(TableTest, EvaluationsAreNotRefilled) {
  TableOptions o = Small();
  o.refill_rounds = 2;
  Ring ring(o);
  EXPECT_THROW(ring.table->Evaluate(0, 2, After(0ms)), Error);
  const auto leases = ring.Lease(1);
  ASSERT_EQ(leases.size(), 1u);
  EXPECT_EQ(ring.table->Insert(EqualAnswer(leases[0])), InsertResult::kInserted);
}

TEST(TableTest, ReopenedItGoesOnWithTheSamePrompts) {
  std::vector<PromptLease> straight, broken;
  {
    Ring ring(Small());
    for (int64_t step = 0; step < 5; ++step) {
      ring.Ask(step);
      for (const auto& l : ring.Lease()) {
        straight.push_back(l);
        ring.table->Insert(Answer(l, step));
      }
    }
  }
  Ring ring(Small());
  for (int64_t step = 0; step < 5; ++step) {
    ring.Ask(step);
    for (const auto& l : ring.Lease(3)) {
      broken.push_back(l);
      ring.table->Insert(Answer(l, step));
    }
    ring.Lease(1);  // handed out, never answered: the restart forgets who had it
    ring.Reopen();
    ring.Ask(step);
    const auto rest = ring.Lease();
    ASSERT_EQ(rest.size(), 1u);
    EXPECT_EQ(rest[0].attempt, 1u);
    broken.push_back(rest[0]);
    ring.table->Insert(Answer(rest[0], step));
    EXPECT_EQ(ring.table->Next(step, After(0ms)).size(), 4u);
  }
  ASSERT_EQ(straight.size(), broken.size());
  for (size_t i = 0; i < straight.size(); ++i) {
    EXPECT_EQ(straight[i].lease_id, broken[i].lease_id);
    EXPECT_EQ(straight[i].prompt, broken[i].prompt);
  }
}

TEST(TableTest, EvaluationHasItsOwnLeasesAndIsAnsweredFromTheStoreLater) {
  TableOptions o = Small();
  o.eval_prompts = 3;
  Ring ring(o);
  ring.Ask(0);
  EXPECT_THROW(ring.table->Evaluate(7, 2, After(0ms)), Error);
  const auto leases = ring.Lease(3);  // before the training leases
  ASSERT_EQ(leases.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(leases[i].purpose, Purpose::kEval);
    EXPECT_EQ(leases[i].lease_id, EvalLeaseBase(7, 2) + i);
    EXPECT_EQ(leases[i].policy_version, 7);
    EXPECT_EQ(leases[i].num_samples, 2);
    EXPECT_EQ(leases[i].prompt.text, "held out " + std::to_string(i));
  }
  // exactly that version
  EXPECT_EQ(ring.table->Insert(Answer(leases[0], 6)), InsertResult::kRefused);
  EXPECT_EQ(Ids(ring.Lease(1)), (std::vector<uint64_t>{leases[0].lease_id}));
  for (const auto& l : leases) EXPECT_EQ(ring.table->Insert(Answer(l, 7)), InsertResult::kInserted);
  const auto answers = ring.table->Evaluate(7, 2, After(0ms));
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(Ids(ring.Lease(1)), (std::vector<uint64_t>{0}));  // now training again
  ring.Reopen();
  EXPECT_EQ(ring.table->Evaluate(7, 2, After(0ms)), answers);
  EXPECT_THROWS(ErrorCode::kDeadline, "3 of 3 groups of the evaluation of version 7",
                ring.table->Evaluate(7, 1, After(0ms)));
  ring.options.eval_prompts = 4;
  ring.Reopen();
  EXPECT_THROWS(ErrorCode::kConflict, "eval_prompts", ring.table->Evaluate(7, 2, After(0ms)));
}

// Two actors share a step whatever the first one could take; what one is done with sooner than the
// other it shares again.
TEST(TableTest, ActorsShareAStep) {
  TableOptions o = Small();
  o.prompts_per_step = 9;
  o.actors = 2;
  Ring ring(o);
  ring.Ask(0);
  const auto lease = [&](const char* actor) { return ring.table->LeaseTo(actor, 100, After(0ms)); };
  auto first = lease("actor-0");
  EXPECT_EQ(first.size(), 5u);
  EXPECT_TRUE(lease("actor-0").empty());
  EXPECT_EQ(lease("actor-1").size(), 4u);
  EXPECT_TRUE(lease("actor-1").empty());
  // One that comes back alone takes all in the end, whatever became of the other.
  for (const auto& l : first) ring.table->Insert(Answer(l, 0));
  ring.table->ReleaseActor("actor-1");
  size_t got = 0;
  for (int round = 0; got < 4; ++round) {
    ASSERT_LT(round, 4);
    for (const auto& l : lease("actor-0")) {
      ++got;
      ring.table->Insert(Answer(l, 0));
    }
  }
  EXPECT_EQ(ring.table->Next(0, After(0ms)).size(), 9u);
  // Held-out prompts too.
  EXPECT_THROW(ring.table->Evaluate(0, 1, After(0ms)), Error);
  EXPECT_EQ(lease("actor-1").size(), 3u);
  EXPECT_EQ(lease("actor-0").size(), 2u);
}

TEST(TableTest, RenewedLeasesAreNotHandedOutAgain) {
  Ring ring(Small());
  ring.Ask(0);
  ASSERT_EQ(ring.table->LeaseTo("actor-0", 2, After(0ms)).size(), 2u);
  ASSERT_EQ(ring.table->LeaseTo("actor-1", 2, After(0ms)).size(), 2u);
  ring.now_ms += 50'000;
  EXPECT_EQ(ring.table->RenewActor("actor-0"), 2);
  ring.now_ms += 50'000;
  EXPECT_EQ(Ids(ring.Lease()), (std::vector<uint64_t>{2, 3}))
      << "only those of the actor that said nothing";
  ring.now_ms += 50'000;
  EXPECT_EQ(Ids(ring.Lease()), (std::vector<uint64_t>{0, 1}));
}

TEST(TableTest, FinishEndsLeasing) {
  Ring ring(Small());
  ring.Ask(0);
  EXPECT_FALSE(ring.table->Finished());
  auto waiting = std::async(std::launch::async, [&] {
    ring.Lease();  // takes what is there
    return ring.table->Lease(1, After(20s));
  });
  std::this_thread::sleep_for(30ms);
  ring.table->Finish();
  EXPECT_TRUE(waiting.get().empty());
  EXPECT_TRUE(ring.table->Finished());
  EXPECT_TRUE(ring.Lease().empty());
}

TEST(TableTest, CursorAndTrim) {
  Ring ring(Small());
  for (int64_t step = 0; step < 3; ++step) {
    ring.Ask(step);
    for (const auto& l : ring.Lease()) ring.table->Insert(Answer(l, step));
  }
  const auto cursor = ring.table->CursorAt(3);
  EXPECT_EQ(cursor.sequence, 12u);
  ring.table->CheckCursor(cursor);
  EXPECT_THROWS(ErrorCode::kCorruption, "acknowledged groups are missing",
                ring.table->CheckCursor({3, 13}));
  EXPECT_THROWS(ErrorCode::kCorruption, "lease 12", ring.table->CheckCursor({4, 12}));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "lease 12 is not complete", ring.table->Trim(4));
  ring.table->Trim(2);
  ring.Reopen();
  ring.table->CheckCursor(cursor);
  EXPECT_EQ(ring.table->Next(2, After(0ms)).size(), 4u);
  EXPECT_THROWS(ErrorCode::kNotFound, "trimmed", ring.table->Next(1, After(0ms)));
}

TEST(TableTest, RefusesOptionsThatContradict) {
  TempFolder folder;
  auto store = OpenStore(folder / "store");
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "no training prompts",
                ReplayTable(store.get(), Small()));
  store->PutPrompts(kTrainDataset, SomePrompts(3));
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "one step takes 4 prompts",
                ReplayTable(store.get(), Small()));
  TableOptions o = Small();
  o.max_staleness = 1;
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "must be 0 under", ReplayTable(store.get(), o));
}

}  // namespace
}  // namespace plumb::replay
